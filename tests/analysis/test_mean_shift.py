"""Mean shift, on data whose modes are known, against scikit-learn's, and beside the Euler ODE."""

import functools

import pytest
import torch
from scipy.optimize import brentq
from sklearn.cluster import MeanShift as FlatMeanShift
from torch import Tensor

import geodiff
from geodiff import OptimalDenoiser, mean_shift, reference, schedules

TWO_POINTS = torch.tensor([[-1.0], [1.0]])


def two_points(x: Tensor, sigma: Tensor) -> Tensor:
    return reference.denoise(x, TWO_POINTS, sigma)


def starts(b: int, *shape: int, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(b, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("sigma", [0.3, 0.7, 0.9])
def test_two_points_below_the_bifurcation_have_two_modes(sigma: float) -> None:
    """The fixed points solve x = tanh(x / sigma^2): 0 and a pair +-m, of which the pair are modes."""
    mode = brentq(lambda m: torch.tanh(torch.tensor(m / sigma**2, dtype=torch.float64)).item() - m, 1e-3, 1)
    x = starts(50, 1, scale=3.0)
    found = mean_shift(two_points, x, sigma, tol=1e-10)
    assert found.converged.all()
    assert found.modes.shape == (2, 1)
    assert sorted(found.modes[:, 0].tolist()) == pytest.approx([-mode, mode], abs=1e-8)
    assert torch.equal(found.points[:, 0] > 0, x[:, 0] > 0)
    assert torch.equal(found.modes[found.labels] > 0, x > 0)
    assert found.counts.tolist() == sorted([int((x > 0).sum()), int((x < 0).sum())], reverse=True)


def test_two_points_above_the_bifurcation_have_one_mode() -> None:
    found = mean_shift(two_points, starts(50, 1, scale=3.0), 1.2, tol=1e-8)
    assert found.modes.flatten().tolist() == pytest.approx([0.0], abs=1e-7)
    assert (found.counts.tolist(), found.labels.unique().tolist()) == ([50], [0])


def test_annealing_goes_through_the_bifurcation() -> None:
    """Above sigma = 1 both starts move towards the mean, 0; what is left of their sign decides between -1 and +1."""
    x = torch.tensor([[-10.0], [10.0]], dtype=torch.float64)
    found = mean_shift(two_points, x, [3.0, 1.5, 0.9, 0.5, 0.1])
    assert found.points.flatten().tolist() == [-1.0, 1.0]
    assert found.converged.all()
    assert (found.iterations > 5).all()


def test_annealing_finds_the_heavier_side_where_fixed_sigma_finds_the_nearest() -> None:
    data = torch.tensor([[-1.0], [1.0], [1.0]])
    x = torch.tensor([[-10.0], [10.0]], dtype=torch.float64)
    annealed = mean_shift(lambda x, sigma: reference.denoise(x, data, sigma), x, schedules.karras(40)[:-1])
    fixed = mean_shift(lambda x, sigma: reference.denoise(x, data, sigma), x, 0.1)
    assert annealed.points.flatten().tolist() == [1.0, 1.0]
    assert fixed.points.flatten().tolist() == [-1.0, 1.0]


def test_a_start_on_the_saddle_stays() -> None:
    found = mean_shift(two_points, torch.zeros(1, 1, dtype=torch.float64), 0.5)
    assert (found.points.item(), found.converged.item(), found.iterations.item()) == (0.0, True, 1)


def symmetric_clusters() -> tuple[Tensor, Tensor]:
    """Five tight clusters far apart, each its own mirror image about its centre: data and centres."""
    generator = torch.Generator().manual_seed(2)
    centres = 40 * torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [2.0, 2.0]])
    offsets = 0.4 * torch.randn(5, 20, 2, generator=generator)
    # Sizes differ, so that the order of the modes is known.
    data = [
        torch.cat([c + o[: 20 - 3 * k], c - o[: 20 - 3 * k]])
        for k, (c, o) in enumerate(zip(centres, offsets, strict=True))
    ]
    return torch.cat(data), centres


def test_the_modes_of_scikit_learn() -> None:
    """scikit-learn's kernel is flat, ours Gaussian: in general their modes differ.

    In clusters that are mirror images of themselves, within one bandwidth and 10 of them apart, both are the centres.
    """
    data, centres = symmetric_clusters()
    theirs = FlatMeanShift(bandwidth=4.0).fit(data.numpy())
    ours = mean_shift(OptimalDenoiser(data), data.double(), 4.0, tol=1e-6)
    assert ours.converged.all()
    assert torch.allclose(ours.modes, centres.double(), atol=1e-3)
    assert torch.allclose(ours.modes, torch.from_numpy(theirs.cluster_centers_).double(), atol=1e-3)
    assert ours.labels.tolist() == theirs.labels_.tolist()
    assert ours.counts.tolist() == [40, 34, 28, 22, 16]


def test_an_iteration_raises_the_density() -> None:
    """By the reference, which tells a rise of 1e-12 from rounding."""
    data = geodiff.data.load("digits").data[:300]
    x, sigma = starts(16, 1, 8, 8, scale=2.0), 1.0
    before = reference.posterior(x, data, sigma).log_prob
    for _ in range(10):
        x = mean_shift(lambda x, sigma: reference.denoise(x, data, sigma), x, sigma, max_iterations=1).points
        after = reference.posterior(x, data, sigma).log_prob
        assert (after >= before - 1e-12 * before.abs()).all()
        assert (after > before).any()
        before = after


def test_the_euler_ode_is_its_partial_step() -> None:
    """x' = x + (1 - sigma'/sigma) (r - x): the mean-shift vector, shortened."""
    denoiser = OptimalDenoiser("digits")
    sigmas = schedules.karras(12)
    x = 80 * starts(8, 1, 8, 8)
    # A function of its own: along a trajectory the denoiser would start from what it knows, within the contract only.
    euler = geodiff.sample(lambda x, sigma: denoiser(x, sigma), x, sigmas, solver="euler")
    for step, (sigma, after) in enumerate(zip(sigmas[:-1].tolist(), sigmas[1:].tolist(), strict=True)):
        end = mean_shift(denoiser, x, sigma, max_iterations=1).points
        x = x + (1 - after / sigma) * (end - x)
        assert torch.allclose(x, euler.states[step + 1], rtol=0, atol=1e-9 * max(1.0, after))
    assert torch.equal(end, euler.states[-1])  # to sigma' = 0 the step is the whole of it


def test_digits_at_small_sigma_end_on_data_points() -> None:
    denoiser = OptimalDenoiser("digits")
    x = starts(32, 1, 8, 8, scale=80.0).float()
    found = mean_shift(denoiser, x, schedules.karras(18)[:-1])
    data = denoiser.data.double() / 127.5 - 1
    assert found.converged.all()
    assert torch.cdist(found.points.double().flatten(1), data.flatten(1)).amin(1).max() < 1e-5
    assert found.points.dtype == torch.float32


def test_fixed_points_are_fixed_and_grouped() -> None:
    denoiser = OptimalDenoiser("digits")
    x = (denoiser.data[::9].double() / 127.5 - 1).contiguous()
    found = mean_shift(denoiser, x, 0.8, tol=1e-6)
    assert found.converged.all()
    moved = (denoiser(found.modes, 0.8) - found.modes).flatten(1).norm(dim=1)
    assert moved.max() < 1e-5
    assert 1 < len(found.modes) < len(x)
    assert found.counts.sum() == len(x)
    assert (found.counts.diff() <= 0).all()
    apart = torch.cdist(found.modes.flatten(1), found.modes.flatten(1)).fill_diagonal_(torch.inf)
    assert apart.min() > 0.08
    assert (found.points - found.modes[found.labels]).flatten(1).norm(dim=1).max() <= 0.08


def test_points_that_did_not_converge_belong_to_no_mode() -> None:
    x = torch.tensor([[0.01], [1.0]], dtype=torch.float64)
    found = mean_shift(two_points, x, 0.3, max_iterations=1)
    assert found.converged.tolist() == [False, True]
    assert found.labels.tolist() == [-1, 0]
    assert (found.counts.tolist(), len(found.modes)) == ([1], 1)
    assert found.shift[0] > 0.05


def test_converged_points_are_not_evaluated_again() -> None:
    batches = []

    def watched(x: Tensor, sigma: Tensor) -> Tensor:
        batches.append(len(x))
        return two_points(x, sigma)

    x = torch.tensor([[1.0], [0.01]], dtype=torch.float64)
    found = mean_shift(watched, x, 0.7)
    assert batches[0] == 2
    assert batches[-1] == 1
    assert found.iterations.sum() == sum(batches)


def test_the_result_does_not_depend_on_the_batch_and_starts_stay() -> None:
    x = starts(6, 1, scale=3.0)
    kept = x.clone()
    together = mean_shift(two_points, x, 0.7)
    alone = [mean_shift(two_points, row[None], 0.7).points[0] for row in x]
    assert torch.equal(together.points, torch.stack(alone))
    assert torch.equal(x, kept)


def test_one_class_through_partial() -> None:
    dataset = geodiff.data.load("digits")
    denoiser = OptimalDenoiser(dataset.data, labels=dataset.labels)
    x = starts(8, 1, 8, 8)
    found = mean_shift(functools.partial(denoiser, class_labels=3), x, 0.05)
    nearest = denoiser.posterior(found.modes, 0.05, topk=1).indices[:, 0]
    assert (torch.as_tensor(dataset.labels)[nearest] == 3).all()


def test_no_points() -> None:
    found = mean_shift(two_points, torch.zeros(0, 1), 0.5)
    assert (found.points.shape, found.modes.shape, found.labels.shape, found.counts.shape) == (
        (0, 1),
        (0, 1),
        (0,),
        (0,),
    )


@pytest.mark.parametrize(
    ("error", "words", "changed"),
    [
        (TypeError, "x: expected a torch.Tensor, found list", {"x": [[1.0]]}),
        (TypeError, "x: expected a supported dtype, found int64", {"x": torch.ones(2, 1, dtype=torch.int64)}),
        (ValueError, r"x: expected shape \[B, \*shape\], found \[2\]", {"x": torch.ones(2)}),
        (ValueError, "x: expected finite values, found nan in row 1", {"x": torch.tensor([[1.0], [torch.nan]])}),
        (ValueError, "sigma: expected a positive, finite noise level, found 0", {"sigma": 0}),
        (ValueError, "sigma: expected a positive, finite noise level, found 0", {"sigma": [1.0, 0.0]}),
        (ValueError, "sigma: expected levels that fall strictly", {"sigma": [1.0, 2.0]}),
        (TypeError, "sigma: expected a real noise level, found bool", {"sigma": True}),
        (TypeError, "sigma: expected real numbers, found str", {"sigma": "small"}),
        (ValueError, "tol: expected a number in range, found 0; allowed tol > 0", {"tol": 0}),
        (TypeError, "tol: expected a real number, found str", {"tol": "1e-3"}),
        (ValueError, "max_iterations: expected an integer in range, found 0", {"max_iterations": 0}),
        (TypeError, "max_iterations: expected an integer, found float", {"max_iterations": 2.5}),
        (
            ValueError,
            r"an output of x's shape \[2, 1\] at sigma = 0.5, found \[2, 2\]",
            {"denoiser": "wide"},
        ),
        (ValueError, "^denoiser: at sigma = 0.5: expected finite values, found nan", {"denoiser": "nan"}),
        (
            TypeError,
            "denoiser: expected a floating tensor at sigma = 0.5, found .*int64",
            {"denoiser": "whole"},
        ),
        (TypeError, "^denoiser: expected a floating tensor at sigma = 0.5, found list", {"denoiser": "list"}),
    ],
)
def test_bad_input_is_named(error: type[Exception], words: str, changed: dict) -> None:
    denoisers = {
        "wide": lambda x, sigma: x.expand(-1, 2),
        "nan": lambda x, sigma: x * torch.nan,
        "whole": lambda x, sigma: x.long(),
        "list": lambda x, sigma: x.tolist(),
    }
    arguments = {"denoiser": two_points, "x": torch.ones(2, 1), "sigma": 0.5, **changed}
    arguments["denoiser"] = denoisers.get(arguments["denoiser"], arguments["denoiser"])
    with pytest.raises(error, match=words):
        mean_shift(**arguments)
