"""What every method of restoration keeps, listed in METHODS of geodiff.measure.restoration."""

import inspect
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import geodiff
from geodiff.inverse import (
    Inpainting,
    Operator,
    Options,
    Problem,
    Restoration,
    SuperResolution,
    dps,
    gaussian_kernel,
    pigdm,
)
from geodiff.measure.restoration import METHODS
from geodiff.schedules import karras
from tests.unit_gaussian import gaussian

SHAPE = (2, 8, 8)
SIGMAS = karras(12, sigma_min=0.02, sigma_max=10.0)
DATA = torch.randint(0, 256, (40, 2, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
DATA = DATA.repeat_interleave(2, 2).repeat_interleave(2, 3)  # what half of the pixels tell of
TRUTH = DATA[:3].double() / 127.5 - 1
HALF = Inpainting.random(SHAPE, 0.5, generator=torch.Generator().manual_seed(1))
SMALL = SuperResolution(2, gaussian_kernel(5, 1.5), SHAPE)

Method = Callable[..., Restoration]


@pytest.fixture(params=list(METHODS))
def method(request: pytest.FixtureRequest) -> Method:
    return METHODS[request.param][0]


def options(seed: int = 0, **others: object) -> Options:
    return Options(generator=torch.Generator().manual_seed(seed), **others)  # type: ignore[arg-type]


def problem(operator: Operator = HALF, dtype: torch.dtype = torch.float64) -> Problem:
    return Problem.simulated(operator, TRUTH.to(dtype), 0.05, generator=torch.Generator().manual_seed(2))


def test_what_was_seen_of_a_data_point_leads_back_to_it(method: Method) -> None:
    """Among 40 random pictures only one fits the pixels that are seen."""
    found = method(geodiff.OptimalDenoiser(DATA), problem(), karras(60, 0.02, 10.0), options=options())
    assert (found.images - TRUTH).square().flatten(1).mean(1).sqrt().max() < 0.1


def test_what_it_answers_fits_the_measurement_better_than_what_it_did_not_look_at(method: Method) -> None:
    measured = problem(SMALL)
    found = method(geodiff.OptimalDenoiser(DATA), measured, karras(60, 0.02, 10.0), options=options()).images
    others = DATA[3:].double() / 127.5 - 1
    apart = torch.stack([measured.misfit(other.expand_as(found)) for other in others])  # [37, B]
    assert (measured.misfit(found) < apart.median(0).values).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_shape_dtype_and_the_number_of_evaluations(method: Method, dtype: torch.dtype) -> None:
    asked = []
    denoiser = geodiff.OptimalDenoiser(DATA)

    def counted(x: Tensor, sigma: Tensor) -> Tensor:
        asked.append(float(sigma))
        return denoiser(x, sigma)

    found = method(counted, problem(dtype=dtype), SIGMAS, options=options())
    assert found.images.shape == (3, *SHAPE)
    assert found.images.dtype == dtype
    assert found.evaluations == len(asked) == 12
    torch.testing.assert_close(torch.tensor(asked, dtype=torch.float64), SIGMAS[:-1].double(), rtol=1e-6, atol=0)


def test_its_noise_is_all_from_the_generator(method: Method) -> None:
    # Of N(0, 1), which has more to end in than data points.
    first, again, other = (method(gaussian, problem(), SIGMAS, options=options(seed)).images for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_watch_sees_every_step(method: Method) -> None:
    seen = []

    def watch(step: int, sigma: float, x: Tensor, estimate: Tensor) -> None:
        assert x.shape == estimate.shape == (3, *SHAPE)
        seen.append((step, sigma))

    method(geodiff.OptimalDenoiser(DATA), problem(), SIGMAS, options=options(watch=watch))
    assert [step for step, _ in seen] == list(range(12))
    assert seen[0][1] == pytest.approx(10.0)


def test_the_denoiser_may_be_any_callable_and_must_answer_in_shape(method: Method) -> None:
    with pytest.raises(TypeError, match=r"^denoiser: expected a callable"):
        method("network", problem(), SIGMAS)
    with pytest.raises(ValueError, match=r"^denoiser: expected an output of x's shape \[3, .*\] at sigma = 10, found"):
        method(lambda x, sigma: x[:, :1], problem(), SIGMAS)
    with pytest.raises(TypeError, match=r"^denoiser: expected a floating tensor at sigma = 10, found .*int64"):
        method(lambda x, sigma: x.long(), problem(), SIGMAS)
    with pytest.raises(ValueError, match=r"^denoiser: at sigma = 10: expected finite values, found nan in row 1"):
        method(lambda x, sigma: x * torch.tensor([1, torch.nan, 1]).view(3, 1, 1, 1), problem(), SIGMAS)
    with pytest.raises(ValueError, match=r"^sigmas: "):
        method(lambda x, sigma: x, problem(), [1.0, 2.0])


def test_no_problem_at_all_is_answered_with_no_image(method: Method) -> None:
    none = Problem(HALF, torch.zeros(0, *SHAPE, dtype=torch.float64), 0.05)
    assert method(geodiff.OptimalDenoiser(DATA), none, SIGMAS).images.shape == (0, *SHAPE)


def test_by_itself_it_takes_its_own_levels_and_its_signature_is_short(
    method: Method, request: pytest.FixtureRequest
) -> None:
    assert len(str(inspect.signature(method))) < 400
    seen: list[float] = []
    watch = options(watch=lambda step, sigma, x, estimate: seen.append(sigma))
    method(gaussian, problem(), options=watch)
    assert seen == METHODS[request.node.callspec.params["method"]][1][:-1].tolist()


def test_inference_mode_is_named_where_a_gradient_is_needed(method: Method) -> None:
    denoiser, asked = geodiff.OptimalDenoiser(DATA), problem()
    with torch.inference_mode():
        if method in (dps, pigdm):
            with pytest.raises(ValueError, match=r"^inference_mode: expected off .* found on; allowed torch\.no_grad"):
                method(denoiser, asked, SIGMAS, options=options())
        else:
            assert method(denoiser, asked, SIGMAS, options=options()).images.isfinite().all()
