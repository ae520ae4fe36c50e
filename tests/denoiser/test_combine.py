"""gain r + sum of terms in one call: against the formula, in place, and as `sample` uses it."""

import functools
import math
import os
from typing import Any

import pytest
import torch
from torch import Tensor

from geodiff import OptimalDenoiser, reference, sample
from geodiff.solvers import SOLVERS, Level

resource = pytest.importorskip("resource", reason="page faults are counted by getrusage, which is POSIX")

SHAPE = (3, 5, 7)
SIGMAS = [9.0, 3.0, 0.7, 0.1, 0.0]


@pytest.fixture(params=["reference", "cpu"])
def denoiser(request: pytest.FixtureRequest) -> OptimalDenoiser:
    generator = torch.Generator().manual_seed(0)
    data = torch.randint(0, 256, (300, *SHAPE), dtype=torch.uint8, generator=generator)
    return OptimalDenoiser(data, labels=torch.arange(300) % 3, backend=request.param)


def points(seed: int, batch: int = 4, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(batch, *SHAPE, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sigma", [0.05, 1.0, 20.0])
@pytest.mark.parametrize("count", [0, 1, 3])
def test_the_formula(denoiser: OptimalDenoiser, dtype: torch.dtype, sigma: float, count: int) -> None:
    x = points(1, dtype=dtype) * (1 + sigma)
    terms = [(0.5 - k, points(2 + k, dtype=dtype)) for k in range(count)]
    out = torch.full_like(x, math.nan)
    assert denoiser.combine(x, sigma, -1.7, terms, out=out) is out
    r = reference.posterior(x.double(), denoiser.data, sigma).mean
    truth = -1.7 * r + sum(factor * values.double() for factor, values in terms)
    allowed = 1.7 * denoiser.tol * r.flatten(1).norm(dim=1) + 1e-7 * truth.flatten(1).norm(dim=1)
    assert ((out - truth).flatten(1).norm(dim=1) <= allowed).all()


@pytest.mark.parametrize("where", ["x", "first", "last"])
def test_out_may_be_what_goes_in(denoiser: OptimalDenoiser, where: str) -> None:
    x, one, two = points(1), points(2), points(3)
    apart = denoiser.combine(x, 1.0, 0.3, [(2.0, one), (-1.0, two), (0.5, x)], out=torch.empty_like(x))
    out = {"x": x, "first": one, "last": two}[where]
    assert torch.equal(denoiser.combine(x, 1.0, 0.3, [(2.0, one), (-1.0, two), (0.5, x)], out=out), apart)


def test_forward_is_the_combination_of_r_alone(denoiser: OptimalDenoiser) -> None:
    x = points(1)
    assert torch.equal(denoiser(x, 2.0), denoiser.combine(x, 2.0, out=torch.empty_like(x)))
    followed = denoiser(x.clone().requires_grad_(), 2.0)  # the operator answers this one
    assert torch.equal(denoiser(x, 2.0), followed.detach())


def test_nothing_is_recorded_and_gradients_ask_for_no_more_digits() -> None:
    """With a float64 x that autograd follows, `forward` answers in float64 throughout; this does not follow it."""
    data = torch.randint(0, 256, (3000, *SHAPE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    denoiser = OptimalDenoiser(data, backend="cpu")
    x = 40 * points(1, dtype=torch.float64)
    plain = denoiser.combine(x, 40.0, out=torch.empty_like(x))
    followed = denoiser.combine(x.clone().requires_grad_(), 40.0, out=torch.empty_like(x))
    assert not followed.requires_grad
    assert torch.equal(followed, plain)


@pytest.mark.parametrize("conditions", ["one class", "classes", "mask"])
def test_conditions(denoiser: OptimalDenoiser, conditions: str) -> None:
    x, term = points(1), points(2)
    given: dict[str, Tensor] = {
        "one class": {"class_labels": torch.full((4,), 2)},
        "classes": {"class_labels": torch.tensor([0, 2, 1, 0])},
        "mask": {"mask": torch.arange(300)[None] % torch.tensor([[2], [3], [4], [5]]) == 0},
    }[conditions]
    r = denoiser.posterior(x, 1.0, **given).mean
    out = denoiser.combine(x, 1.0, 2.0, [(-1.0, term)], out=torch.empty_like(x), **given)
    assert torch.allclose(out, 2 * r - term, atol=1e-5)
    assert torch.allclose(denoiser(x, 1.0, **given), r, atol=1e-5)


def test_data_that_lie_in_another_order_and_mirrored() -> None:
    data = torch.randint(0, 256, (50, 5, 7, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    for augment in (None, "hflip"):
        denoiser = OptimalDenoiser(data, augment=augment)
        x, term = points(1), points(2)
        r = denoiser.posterior(x, 1.0).mean
        out = denoiser.combine(x, 1.0, 2.0, [(3.0, term)], out=torch.empty_like(x))
        assert torch.allclose(out, 2 * r + 3 * term, atol=1e-5)


@pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning")  # raised inside torch.func itself
def test_under_torch_func_and_modes(denoiser: OptimalDenoiser) -> None:
    x = points(1, 6)
    mapped = torch.vmap(lambda y: denoiser(y, 1.0))(x.unflatten(0, (2, 3)))
    assert torch.allclose(mapped.flatten(0, 1), denoiser(x, 1.0), atol=1e-6)
    _, tangent = torch.func.jvp(lambda y: denoiser(y, 1.0), (x,), (points(2, 6),))
    assert tangent.norm() > 0
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, points(2, 6))
        found = torch.autograd.forward_ad.unpack_dual(denoiser(dual, 1.0)).tangent
    assert torch.allclose(found, tangent, atol=1e-6)


@pytest.mark.parametrize("solver", ["heun", "dpm2"])
def test_a_step_of_two_evaluations_can_be_differentiated(denoiser: OptimalDenoiser, solver: str) -> None:
    """The second evaluation must not be built over the x that the first derivative needs."""

    def end(x: Tensor) -> Tensor:
        def evaluate(y: Tensor, sigma: float) -> Tensor:
            return denoiser(y, sigma)

        return SOLVERS[solver](evaluate, Level(2.0, x, evaluate(x, 2.0)), 1.0)

    x, step = points(1, 2, torch.float64), 1e-4 * points(2, 2, torch.float64)
    moved = torch.autograd.functional.jvp(end, x, step)[1]
    with torch.no_grad():
        assert torch.allclose(moved, (end(x + step) - end(x - step)) / 2, atol=0.02 * moved.abs().max().item())


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_a_trace_records_the_operator_and_no_constant(denoiser: OptimalDenoiser) -> None:
    with torch.no_grad():
        traced = torch.jit.trace(lambda y: denoiser(y, 1.0), (points(1),))
        assert torch.allclose(traced(points(2)), denoiser(points(2), 1.0), atol=1e-6)


def test_autograd_hears_of_what_was_overwritten(denoiser: OptimalDenoiser) -> None:
    saved, weight = points(2), points(3).requires_grad_()
    product = (saved * weight).sum()
    denoiser.combine(points(1), 1.0, out=saved)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.backward()
    with torch.inference_mode():
        denoiser.combine(points(1), 1.0, out=torch.empty_like(points(1)))


BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"x": points(0).half()}, TypeError, r"^x: expected"),
    ({"out": points(0).double()}, TypeError, r"^out: expected"),
    ({"out": points(0, 3)}, ValueError, r"^out: expected as many points as x, B = 4, found 3"),
    ({"out": points(0)[:, :2]}, ValueError, r"^out: expected shape"),
    ({"terms": [(1.0, points(0)), (1.0, points(0, 5))]}, ValueError, r"^terms\[1\]: expected as many"),
    ({"terms": [(1.0, points(0).double())]}, TypeError, r"^terms\[0\]: expected"),
    ({"sigma": 0.0}, ValueError, r"^sigma: expected"),
    ({"x": points(0).fill_(math.inf)}, ValueError, r"^x: expected finite values, found inf in row 0"),
]


@pytest.mark.parametrize(("changed", "error", "message"), BAD)
def test_bad_arguments(
    denoiser: OptimalDenoiser, changed: dict[str, Any], error: type[Exception], message: str
) -> None:
    out = points(9)
    before = out.clone()
    with pytest.raises(error, match=message):
        denoiser.combine(**{"x": points(0), "sigma": 1.0, "terms": [], "out": out, **changed})
    assert torch.equal(out, before)


@pytest.mark.parametrize("solver", sorted(SOLVERS))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sample_is_what_single_steps_give(denoiser: OptimalDenoiser, solver: str, dtype: torch.dtype) -> None:
    noise = SIGMAS[0] * points(1, dtype=dtype)
    fused = sample(denoiser, noise, SIGMAS, solver)
    plain = sample(lambda x, sigma: denoiser(x, sigma), noise, SIGMAS, solver)
    assert fused.metadata == plain.metadata
    for one, other in ((fused.states, plain.states), (fused.denoised, plain.denoised)):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-4)
    assert torch.equal(fused.denoised[0], plain.denoised[0])


def test_sample_calls_what_was_put_around_the_denoiser(denoiser: OptimalDenoiser) -> None:
    """Subclasses, hooks, and a forward of one's own are called, not passed by."""

    class Doubled(OptimalDenoiser):
        def forward(self, *args: Any, **kwargs: Any) -> Tensor:
            return 2 * super().forward(*args, **kwargs)

    noise = SIGMAS[0] * points(1)
    truth = 2 * sample(denoiser, noise, SIGMAS, "euler").denoised[0]
    assert torch.allclose(sample(Doubled(denoiser.data), noise, SIGMAS, "euler").denoised[0], truth, atol=1e-5)
    with denoiser.register_forward_hook(lambda module, args, output: 2 * output):
        assert torch.equal(sample(denoiser, noise, SIGMAS, "euler").denoised[0], truth)
    with denoiser.register_forward_pre_hook(lambda module, args: (args[0] * 0, args[1])):
        assert not torch.equal(sample(denoiser, noise, SIGMAS, "euler").denoised[0], truth / 2)
    denoiser.forward = functools.partial(Doubled.forward, Doubled(denoiser.data))  # type: ignore[method-assign]
    assert torch.allclose(sample(denoiser, noise, SIGMAS, "euler").denoised[0], truth, atol=1e-5)


@pytest.mark.skipif("ASAN_OPTIONS" in os.environ, reason="a sanitizer has the core free what it would keep")
@pytest.mark.parametrize("sigma", [40.0, 1.0], ids=["dense", "screened"])
def test_a_call_takes_no_new_memory(sigma: float) -> None:
    """Nothing of the size of x (192 pages) is allocated, and what the core needs it keeps for the next call."""
    data = torch.randint(0, 256, (2000, 3072), dtype=torch.uint8)
    denoiser = OptimalDenoiser(data, backend="cpu")
    x = reference.model_space(data[:64], torch.float32) + sigma * torch.randn(64, 3072)
    out = torch.empty_like(x)

    def call() -> None:
        denoiser.combine(x, sigma, 0.5, [(0.5, x)], out=out)

    for _ in range(3):
        call()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        call()
    faults = (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 10
    assert faults < 40, f"{faults:g} page faults per call"
