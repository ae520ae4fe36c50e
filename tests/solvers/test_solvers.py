"""The solver loop and its steps, on denoisers that are simple enough to know what must come out."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, is_tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from geodiff import OptimalDenoiser, schedules
from geodiff.analytic import GaussianDenoiser
from geodiff.learned import LearnedDenoiser, TrajectoryOperator, UNetConfig
from geodiff.paths import LINEAR
from geodiff.solvers import SOLVERS, Evaluate, Level, euler, heun, sample
from tests.unit_gaussian import gaussian

SIGMAS = [8.0, 3.0, 0.5, 0.0]


def noise(b: int = 3, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return SIGMAS[0] * torch.randn(b, *(shape or (2, 4)), dtype=dtype, generator=generator)


@pytest.mark.parametrize("solver", sorted(SOLVERS))
def test_shapes_and_what_is_kept(solver: str) -> None:
    start = noise()
    trajectory = sample(gaussian, start, SIGMAS, solver)
    assert trajectory.sigmas.tolist() == SIGMAS
    assert trajectory.sigmas.dtype == torch.float64
    assert trajectory.states.shape == (4, 3, 2, 4)
    assert trajectory.denoised.shape == (3, 3, 2, 4)
    assert torch.equal(trajectory.states[0], start)
    for step, sigma in enumerate(SIGMAS[:-1]):
        assert torch.equal(trajectory.denoised[step], gaussian(trajectory.states[step], torch.tensor(sigma).double()))
    assert trajectory.metadata["solver"] == solver


@pytest.mark.parametrize(("solver", "tolerance"), [("euler", 2e-2), ("heun", 2e-4)])
def test_gaussian_flow(solver: str, tolerance: float) -> None:
    trajectory = sample(gaussian, noise(), schedules.karras(200, 0.01, SIGMAS[0])[:-1], solver)
    scale = ((trajectory.sigmas**2 + 1) / (SIGMAS[0] ** 2 + 1)).sqrt()
    assert torch.allclose(trajectory.states, scale[:, None, None, None] * trajectory.states[0], rtol=tolerance)


def test_euler_is_the_textbook_step() -> None:
    x, denoised = noise(), noise() / 7
    found = euler(lambda x, sigma: x, Level(3.0, x, denoised), 0.5)
    assert torch.allclose(found, x + (0.5 - 3.0) * (x - denoised) / 3.0, rtol=1e-13)


def test_heun_is_the_textbook_step() -> None:
    x, sigma, after = noise(), torch.tensor(3.0).double(), torch.tensor(0.5).double()
    slope = (x - gaussian(x, sigma)) / sigma
    guess = x + (after - sigma) * slope
    expected = x + (after - sigma) * (slope + (guess - gaussian(guess, after)) / after) / 2
    found = heun(lambda x, sigma: gaussian(x, torch.tensor(sigma)), Level(3.0, x, gaussian(x, sigma)), 0.5)
    assert torch.allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("solver", sorted(SOLVERS))
def test_a_step_to_zero_returns_the_denoised_point_exactly(solver: str) -> None:
    trajectory = sample(gaussian, noise(), SIGMAS, solver)
    assert torch.equal(trajectory.states[-1], trajectory.denoised[-1])


@pytest.mark.parametrize(("solver", "evaluations"), [("euler", 18), ("heun", 35)])
def test_evaluations_on_the_schedule_of_edm(solver: str, evaluations: int) -> None:
    levels = []

    def counted(x: Tensor, sigma: Tensor) -> Tensor:
        levels.append(sigma.item())
        return gaussian(x, sigma)

    trajectory = sample(counted, noise(), schedules.edm(), solver)
    assert len(levels) == evaluations
    assert trajectory.metadata["evaluations"] == str(evaluations)
    assert min(levels) == 0.002


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sigma_reaches_the_denoiser_as_a_number_in_the_dtype_of_x(dtype: torch.dtype) -> None:
    seen: list[Tensor] = []

    def denoiser(x: Tensor, sigma: Tensor) -> Tensor:
        seen.append(sigma)
        return gaussian(x, sigma)

    trajectory = sample(denoiser, noise(dtype=dtype), SIGMAS, "heun")
    assert {(sigma.dtype, sigma.ndim) for sigma in seen} == {(dtype, 0)}
    assert trajectory.states.dtype == trajectory.denoised.dtype == dtype


def test_a_network_that_answers_in_float32_is_taken() -> None:
    trajectory = sample(lambda x, sigma: gaussian(x, sigma).float(), noise(), SIGMAS)
    assert trajectory.denoised.dtype == torch.float64


@pytest.mark.parametrize(
    "sigmas",
    [SIGMAS, tuple(SIGMAS), np.array(SIGMAS), torch.tensor(SIGMAS), torch.tensor(SIGMAS).double(), [8, 3, 0]],
    ids=lambda sigmas: type(sigmas).__name__,
)
def test_sigmas_of_any_kind(sigmas: list[float]) -> None:
    trajectory = sample(gaussian, noise(), sigmas)
    assert trajectory.sigmas.tolist() == [float(sigma) for sigma in sigmas]


def test_a_list_of_sigmas_keeps_the_digits_of_float64() -> None:
    assert sample(gaussian, noise(), [0.3, 0.1]).sigmas.tolist() == [0.3, 0.1]


@pytest.mark.parametrize("solver", sorted(SOLVERS))
def test_an_empty_batch(solver: str) -> None:
    trajectory = sample(gaussian, noise(0), SIGMAS, solver)
    assert trajectory.states.shape == (4, 0, 2, 4)
    assert trajectory.denoised.shape == (3, 0, 2, 4)


def test_the_batch_does_not_matter() -> None:
    together, alone = sample(gaussian, noise(), SIGMAS), sample(gaussian, noise()[1:2], SIGMAS)
    assert torch.equal(together.states[:, 1:2], alone.states)


def test_a_strided_start_is_left_as_it_is() -> None:
    start = noise(3, 4, 2).transpose(1, 2)
    before = start.clone()
    trajectory = sample(gaussian, start, SIGMAS)
    assert torch.equal(start, before)
    assert torch.equal(trajectory.states, sample(gaussian, before, SIGMAS).states)


def test_callback_sees_every_step() -> None:
    seen: list[tuple[int, float]] = []

    def callback(step: int, sigma: float, x: Tensor, denoised: Tensor) -> None:
        seen.append((step, sigma))
        assert torch.equal(denoised, gaussian(x, x.new_tensor(sigma)))

    sample(gaussian, noise(), SIGMAS, callback=callback)
    assert seen == list(enumerate(SIGMAS[:-1]))


def test_what_a_callback_raises_comes_through() -> None:
    def callback(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sample(gaussian, noise(), SIGMAS, callback=callback)


def test_a_step_function_of_your_own() -> None:
    def midpoint(denoiser: Evaluate, at: Level, sigma_next: float, history: Sequence[Level] = ()) -> Tensor:
        between = (at.sigma + sigma_next) / 2
        assert [level.sigma for level in history] == [level for level in SIGMAS if level > at.sigma]
        halfway = euler(denoiser, at, between).clone()
        return euler(denoiser, at._replace(denoised=denoiser(halfway, between)), sigma_next)

    trajectory = sample(gaussian, noise(), SIGMAS, midpoint)
    assert trajectory.metadata == {"solver": "midpoint", "evaluations": "6"}


def test_no_graph_is_built_but_the_denoiser_may_build_one() -> None:
    def guided(x: Tensor, sigma: Tensor) -> Tensor:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(x.square().sum(), x)
        return gaussian(x, sigma) + 0 * gradient

    trajectory = sample(guided, noise().requires_grad_(), SIGMAS)
    assert not trajectory.states.requires_grad
    assert not trajectory.denoised.requires_grad
    assert torch.equal(trajectory.states, sample(gaussian, noise(), SIGMAS).states)


def test_progress_goes_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    sample(gaussian, noise(), SIGMAS, progress=True)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "heun, 3 steps" in printed.err


def test_quiet_by_default(capsys: pytest.CaptureFixture[str]) -> None:
    sample(gaussian, noise(), SIGMAS)
    printed = capsys.readouterr()
    assert printed.out + printed.err == ""


def not_finite(x: Tensor, sigma: Tensor) -> Tensor:
    return torch.where(sigma < 1, math.nan, x)


@pytest.mark.parametrize(
    ("name", "error", "change"),
    [
        ("denoiser", TypeError, {"denoiser": None}),
        ("denoiser", TypeError, {"denoiser": lambda x, sigma: x.tolist()}),
        ("denoiser", TypeError, {"denoiser": lambda x, sigma: x.long()}),
        ("denoiser", ValueError, {"denoiser": lambda x, sigma: x[:1]}),
        ("denoiser", ValueError, {"denoiser": lambda x, sigma: x.flatten(1)}),
        ("denoiser", ValueError, {"denoiser": not_finite}),
        ("noise", TypeError, {"noise": np.zeros((2, 3))}),
        ("noise", TypeError, {"noise": torch.zeros(2, 3, dtype=torch.int64)}),
        ("noise", TypeError, {"noise": torch.zeros(2, 3, dtype=torch.float16)}),
        ("noise", ValueError, {"noise": torch.tensor(1.0)}),
        ("noise", ValueError, {"noise": torch.tensor([[1.0, math.inf]])}),
        ("sigmas", TypeError, {"sigmas": "karras"}),
        ("sigmas", TypeError, {"sigmas": None}),
        ("sigmas", TypeError, {"sigmas": torch.tensor([True, False])}),
        ("sigmas", ValueError, {"sigmas": 8.0}),
        ("sigmas", ValueError, {"sigmas": [8.0]}),
        ("sigmas", ValueError, {"sigmas": torch.ones(3, 1)}),
        ("sigmas", ValueError, {"sigmas": [0.5, 8.0]}),
        ("sigmas", ValueError, {"sigmas": [8.0, 8.0, 0.0]}),
        ("sigmas", ValueError, {"sigmas": [8.0, 0.0, 0.0]}),
        ("sigmas", ValueError, {"sigmas": [8.0, -1.0]}),
        ("sigmas", ValueError, {"sigmas": [math.inf, 1.0]}),
        ("sigmas", ValueError, {"sigmas": [8.0, math.nan]}),
        ("solver", ValueError, {"solver": "rk45"}),
        ("solver", TypeError, {"solver": 2}),
        ("solver", ValueError, {"solver": lambda denoiser, x, *_: x[:1]}),
        ("solver", ValueError, {"solver": lambda *_: None}),
    ],
)
def test_bad_arguments_are_named(name: str, error: type[Exception], change: dict[str, object]) -> None:
    arguments: dict[str, object] = {"denoiser": gaussian, "noise": noise(), "sigmas": SIGMAS, **change}
    with pytest.raises(error, match=rf"^{name}: .*expected .* found .*; allowed "):
        sample(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("error", "message", "change"),
    [
        (TypeError, r"path: expected a path of geodiff\.paths, found str 'linear'; allowed", {"path": "linear"}),
        (TypeError, "conditions: expected names and values, found list", {"conditions": [1]}),
        (TypeError, "conditions: expected .*, found 'classlabels'; allowed class_", {"conditions": {"classlabels": 1}}),
        (ValueError, r"noise: expected shape \[B, 3\], found \[2, 5\]", {"noise": torch.zeros(2, 5)}),
        (ValueError, r"noise: expected shape \[B, 3\]", {"noise": torch.zeros(2, 5), "path": LINEAR}),
    ],
)
def test_arguments_are_named_for_the_optimal_denoiser_too(
    error: type[Exception], message: str, change: dict[str, Any]
) -> None:
    denoiser = OptimalDenoiser(torch.randn(5, 3))
    levels = [0.9, 0.1] if "path" in change else SIGMAS
    with pytest.raises(error, match=f"^{message}"):
        sample(**{"denoiser": denoiser, "noise": torch.zeros(2, 3), "sigmas": levels, **change})


def test_a_noise_of_another_shape_is_named_for_a_network_too() -> None:
    network = LearnedDenoiser((1, 8, 8), UNetConfig(1, width=8))
    with pytest.raises(ValueError, match=r"^noise: expected shape \[B, 1, 8, 8\], found \[2, 1, 9, 9\]"):
        sample(network, torch.zeros(2, 1, 9, 9), SIGMAS)
    with pytest.raises(ValueError, match=r"^noise: expected shape \[B, 1, 8, 8\], found \[2, 1, 9, 9\]"):
        TrajectoryOperator((1, 8, 8), UNetConfig(1, width=8))(torch.zeros(2, 1, 9, 9))
    with pytest.raises(ValueError, match=r"^noise: expected shape \[B, 3\], found \[2, 5\]"):
        GaussianDenoiser(torch.zeros(3), torch.zeros(3, 0), torch.zeros(0)).trajectory(torch.zeros(2, 5), SIGMAS)


def test_an_unknown_solver_is_told_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'rk45'; allowed euler, heun, .*, or a step function"):
        sample(gaussian, noise(), SIGMAS, "rk45")


def test_a_denoiser_that_fails_is_told_where() -> None:
    with pytest.raises(ValueError, match=r"at sigma = 0\.5: .* found nan"):
        sample(not_finite, noise(), SIGMAS)


class CountsTensors(TorchDispatchMode):
    """Counts the operations that answer with a new tensor of `numel` numbers or more."""

    def __init__(self, numel: int) -> None:
        super().__init__()
        self.numel = numel
        self.made: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        answer = func(*args, **(kwargs or {}))
        known = {tensor.untyped_storage().data_ptr() for tensor in tree_leaves((args, kwargs)) if is_tensor(tensor)}
        for tensor in tree_leaves(answer):
            if is_tensor(tensor) and tensor.numel() >= self.numel and tensor.untyped_storage().data_ptr() not in known:
                self.made.append(str(func))
        return answer


@pytest.mark.parametrize("solver", sorted(SOLVERS))
def test_nothing_of_the_size_of_a_state_is_made_but_the_trajectory(solver: str) -> None:
    answer = torch.zeros(50, 20, dtype=torch.float64)  # made before, as a network with its own buffers would
    start = noise(50, 20)
    with CountsTensors(start.numel()) as counter:
        sample(lambda x, sigma: answer, start, SIGMAS, solver)
    assert counter.made == ["aten.new_empty.default"] * 2
