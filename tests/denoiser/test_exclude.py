"""Leave-one-out: a query answers as if one point were not in the data, to 1e-6, in everything that a denoiser gives."""

import time

import numpy as np
import pytest
import torch
from torch import Tensor

import geodiff
from geodiff import reference
from tests import field

BACKENDS = [name for name in ("reference", "cpu") if geodiff.backends.is_available(name)]
SIGMAS = [0.02, 0.3, 1.0, 5.0, 80.0]
DTYPES = [torch.uint8, torch.bfloat16, torch.float16, torch.float32]
OUT = torch.tensor([3, -1, 0, 89, 11])


def images(dtype: torch.dtype, n: int = 90) -> Tensor:
    g = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (n, 3, 8, 9), dtype=torch.uint8, generator=g)
    pixels[4] = pixels[3]  # a duplicate stays
    pixels[12] = pixels[11]
    pixels[12, 0, 0, 0] ^= 1
    return pixels if dtype == torch.uint8 else reference.model_space(pixels, torch.float32).to(dtype)


def at_the_points(data: Tensor, sigma: float) -> Tensor:
    """Queries around the very points that are left out, which without `exclude` would take nearly all the weight."""
    points = reference.model_space(data[OUT.clamp(min=0)], torch.float32)
    return points + sigma * torch.randn(points.shape, generator=torch.Generator().manual_seed(1))


def close(name: str, found: Tensor, expected: Tensor, tol: float = 1e-6) -> None:
    off = float((found.double() - expected.double()).norm())
    assert off <= tol * max(float(expected.double().norm()), 1e-3), f"{name}: off by {off:.3g}"


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("sigma", SIGMAS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("weighted", [False, True])
def test_as_if_the_point_were_not_there(backend: str, sigma: float, dtype: torch.dtype, weighted: bool) -> None:
    data = images(dtype)
    log_weights = torch.randn(90, generator=torch.Generator().manual_seed(3)) if weighted else None
    denoiser = geodiff.OptimalDenoiser(data, log_weights=log_weights, backend=backend, tol=1e-6)
    x = at_the_points(data, sigma)
    found = denoiser.posterior(x, sigma, topk=4, exclude=OUT)
    close("forward", denoiser(x, sigma, exclude=OUT), found.mean)
    close("score", denoiser.score(x, sigma, exclude=OUT), (found.mean.double() - x.double()) / sigma**2, 1e-5)
    close("log_prob", denoiser.log_prob(x, sigma, exclude=OUT), found.log_prob)
    v = torch.randn(x.shape, generator=torch.Generator().manual_seed(4))
    moved = found.covariance(v)
    for b in range(5):
        kept = torch.arange(90)[torch.arange(90) != OUT[b]]
        weights = None if log_weights is None else log_weights[kept]
        one = x[b : b + 1].double()
        exact = reference.posterior(one, data[kept], sigma, topk=4, log_weights=weights)
        close("mean", found.mean[b], exact.mean[0])
        assert abs(float(found.log_prob[b]) - float(exact.log_prob)) <= 1e-3 + 1e-6 * abs(float(exact.log_prob))
        torch.testing.assert_close(found.entropy[b].double(), exact.entropy[0], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(found.ess[b].double(), exact.ess[0], rtol=1e-4, atol=1e-4)
        assert torch.equal(found.indices[b], kept[exact.indices[0]])
        torch.testing.assert_close(found.weights[b].double(), exact.weights[0], rtol=1e-4, atol=1e-6)
        rows, _ = reference.moments.covariance(
            one, data[kept], sigma, reference.moments.Along(v[b : b + 1].double(), torch.zeros(1)), log_weights=weights
        )
        scale = float(v[b].norm()) * float(geodiff.moments.trace(one, data[kept], sigma, log_weights=weights))
        assert float((moved[b].double() - rows[0]).norm()) <= 1e-4 * max(scale, 1e-3)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("sigma", [0.3, 5.0])
def test_classes_and_mirror_images(backend: str, sigma: float) -> None:
    """A point's mirror image goes with it, and a point of another class is none that could be left out."""
    data = images(torch.uint8)
    labels = torch.arange(90) % 3
    denoiser = geodiff.OptimalDenoiser(data, labels=labels, augment="hflip", backend=backend, tol=1e-6)
    x, wanted = at_the_points(data, sigma), torch.tensor([0, 2, 1, 2, 2])
    found = denoiser.posterior(x, sigma, wanted, topk=3, exclude=OUT)
    for b in range(5):
        kept = ((labels == wanted[b]) & (torch.arange(90) != OUT[b])).nonzero()[:, 0]
        both = torch.cat([data[kept], data[kept].flip(-1)])
        exact = reference.posterior(x[b : b + 1].double(), both, sigma, topk=3)
        close("mean", found.mean[b], exact.mean[0], 2e-6)
        assert torch.equal(found.indices[b], torch.cat([kept, kept + 90])[exact.indices[0]])
    # What a posterior names can be left out as it is named: a copy stands for its point.
    heaviest = denoiser.posterior(x, sigma, topk=1).indices[:, 0]
    without = denoiser.posterior(x, sigma, topk=1, exclude=heaviest)
    assert (without.indices[:, 0] % 90 != heaviest % 90).all()
    torch.testing.assert_close(denoiser(x, sigma, exclude=heaviest % 90), without.mean, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_mask_and_a_point_left_out(backend: str) -> None:
    data = images(torch.uint8)
    denoiser = geodiff.OptimalDenoiser(data, backend=backend)
    seen = torch.rand(5, 90, generator=torch.Generator().manual_seed(5)) < 0.5
    x = at_the_points(data, 1.0)
    without = seen & (torch.arange(90) != OUT[:, None])
    torch.testing.assert_close(denoiser(x, 1.0, mask=seen, exclude=OUT), denoiser(x, 1.0, mask=without))


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients(backend: str) -> None:
    data = images(torch.float32)
    denoiser = geodiff.OptimalDenoiser(data, backend=backend)
    x = at_the_points(data, 2.0).double().requires_grad_()
    sigma = torch.full((5,), 2.0, dtype=torch.float64, requires_grad=True)
    g = torch.randn(x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
    (denoiser(x, sigma, exclude=OUT) * g).sum().backward()
    assert x.grad is not None
    assert sigma.grad is not None
    for b in range(5):
        kept = torch.arange(90)[torch.arange(90) != OUT[b]]
        one = x.detach()[b : b + 1].requires_grad_()
        level = torch.full((1,), 2.0, dtype=torch.float64, requires_grad=True)
        (reference.posterior(one, data[kept], level).mean * g[b : b + 1]).sum().backward()
        assert one.grad is not None
        assert level.grad is not None
        close("by x", x.grad[b], one.grad[0], 1e-5)
        close("by sigma", sigma.grad[b], level.grad[0], 1e-5)
    assert torch.autograd.gradcheck(
        lambda y: denoiser.log_prob(y, 2.0, exclude=OUT), x.detach().requires_grad_(), fast_mode=True
    )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("sigma", [0.3, 5.0, 40.0])
def test_draws(backend: str, sigma: float) -> None:
    data = images(torch.uint8)
    denoiser = geodiff.OptimalDenoiser(data, backend=backend)
    x = at_the_points(data, sigma)
    drawn = denoiser.posterior(x, sigma, exclude=OUT).sample(4000, generator=torch.Generator().manual_seed(7))
    assert (drawn != OUT[:, None]).all()
    mean = reference.model_space(data, torch.float32)[drawn].mean(1)
    expected = denoiser.posterior(x, sigma, exclude=OUT)
    assert expected.trace is not None
    off = (mean - expected.mean).flatten(1).norm(dim=1)
    assert (off <= 5 * (expected.trace / 4000).sqrt() + 1e-5).all()


@pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning", "ignore::DeprecationWarning:torch.*")
def test_combine_and_the_functions_of_torch() -> None:
    data = images(torch.uint8)
    denoiser = geodiff.OptimalDenoiser(data)
    x, out = at_the_points(data, 1.0), torch.empty(5, 3, 8, 9)
    denoiser.combine(x, 1.0, 2.0, [(-1.0, x)], out=out, exclude=OUT)
    torch.testing.assert_close(out, 2 * denoiser(x, 1.0, exclude=OUT) - x)
    jacobian = torch.func.jvp(lambda y: denoiser(y, 1.0, exclude=OUT), (x,), (torch.ones_like(x),))[1]
    torch.testing.assert_close(jacobian, denoiser.posterior(x, 1.0, exclude=OUT).covariance(torch.ones_like(x)))
    each = torch.func.vmap(lambda y, j: denoiser(y[None], 1.0, exclude=j[None])[0])(x, OUT)
    torch.testing.assert_close(each, denoiser(x, 1.0, exclude=OUT))
    compiled = torch.compile(lambda y, j: denoiser(y, 1.0, exclude=j), fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x, OUT), denoiser(x, 1.0, exclude=OUT))


def test_known_values() -> None:
    """Eight points in six dimensions, A t = 0.6, and data point 2 or 2 and 5 left out."""
    data, x = field.points(), field.at(0.6)
    for out, expected in (
        ([2, -1], (0.206278844711, 0.562041052745, -0.16150074759, 1.7863069970)),
        ([2, 5], (0.206278844711, 0.678154451352, -0.12685555704, 2.0658079849)),
    ):
        exclude = torch.tensor(out)
        r = reference.posterior(x / 0.4, data, 1.5, exclude=exclude).mean
        assert field.summary(r) == pytest.approx(expected, abs=1e-9)
        v = reference.velocity(x, data, 0.6, exclude=exclude)
        torch.testing.assert_close(v, (x - r) / 0.6, rtol=0, atol=1e-12)
        for backend in BACKENDS:
            denoiser = geodiff.OptimalDenoiser(data.float(), backend=backend)
            torch.testing.assert_close(denoiser(x / 0.4, 1.5, exclude=exclude), r, rtol=1e-6, atol=1e-6)
            torch.testing.assert_close(denoiser.velocity(x, 0.6, exclude=exclude), v, rtol=1e-6, atol=1e-6)


def test_a_prior_that_is_nearly_all_on_one_point() -> None:
    """1 - pi_j is 0 in float64 there; what is left is not."""
    data = images(torch.float32)[:6]
    log_weights = torch.tensor([0.0, -60.0, -61.0, -62.0, -60.0, -70.0])
    x, out = at_the_points(images(torch.float32), 1.0)[:1], torch.tensor([0])
    for backend in BACKENDS:
        found = geodiff.OptimalDenoiser(data, log_weights=log_weights, backend=backend).posterior(x, 1.0, exclude=out)
        exact = reference.posterior(x.double(), data[1:], 1.0, log_weights=log_weights[1:])
        close("mean", found.mean, exact.mean, 1e-5)
        torch.testing.assert_close(found.log_prob.double(), exact.log_prob, rtol=1e-6, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.uint16, torch.uint64])
def test_any_integers_will_do(dtype: torch.dtype) -> None:
    denoiser = geodiff.OptimalDenoiser(torch.randint(0, 256, (6, 4), dtype=torch.uint8))
    local = geodiff.LocalDenoiser(torch.randint(0, 256, (6, 1, 4, 4), dtype=torch.uint8))
    x, out = torch.randn(2, 4), torch.tensor([5, 0])
    assert torch.equal(denoiser(x, 1.0, exclude=out.to(dtype)), denoiser(x, 1.0, exclude=out))
    assert torch.equal(denoiser(x, 1.0, exclude=out.to(dtype).numpy()), denoiser(x, 1.0, exclude=out))
    x = torch.randn(2, 1, 4, 4)
    assert torch.equal(local(x, 1.0, exclude=out.to(dtype)), local(x, 1.0, exclude=out))


@pytest.mark.parametrize(
    ("exclude", "error", "message"),
    [
        (torch.tensor([0, 6]), ValueError, r"exclude: expected points of the data, found 6; allowed 0 \.\. 5, or -1"),
        (torch.tensor([0, -2]), ValueError, "exclude: expected points of the data, found -2"),
        (torch.tensor([0]), ValueError, r"exclude: expected shape \[B\] = \[2\], found \[1\]"),
        (
            torch.tensor([0.0, 1.0]),
            TypeError,
            "exclude: expected a supported dtype, found float32; allowed uint8, int8",
        ),
        ([0.5, 1.0], TypeError, "exclude: expected a supported dtype, found float32; allowed uint8, int8"),
        (
            torch.tensor([True, False]),
            TypeError,
            "exclude: expected a supported dtype, found bool; allowed uint8, int8",
        ),
        ("01", TypeError, "exclude: expected a tensor or array, found str"),
    ],
)
def test_bad_arguments(exclude: object, error: type[Exception], message: str) -> None:
    denoiser = geodiff.OptimalDenoiser(torch.randint(0, 256, (6, 4), dtype=torch.uint8))
    with pytest.raises(error, match=message):
        denoiser(torch.randn(2, 4), 1.0, exclude=exclude)  # type: ignore[arg-type]


def test_other_kinds_of_exclude_and_query_and_time() -> None:
    denoiser = geodiff.OptimalDenoiser(torch.randint(0, 256, (6, 4), dtype=torch.uint8))
    x, exclude = torch.randn(2, 4), torch.tensor([3, -1])
    exact = denoiser(x, 1.0, exclude=exclude)
    for kind in ([3, -1], exclude.numpy()):
        assert torch.equal(denoiser(x, 1.0, exclude=kind), exact)
    found = denoiser(x.numpy(), 1.0, exclude=exclude.numpy())
    assert isinstance(found, np.ndarray)
    assert np.array_equal(found, exact.numpy())
    velocity = denoiser.velocity(x, 0.5, exclude=exclude)
    found = denoiser.velocity(x.numpy(), np.array([0.5, 0.5]), exclude=[3, -1])
    assert isinstance(found, np.ndarray)
    assert np.array_equal(found, velocity.numpy())


def test_compiled_and_exported_graphs_leave_out_what_each_call_says() -> None:
    denoiser = geodiff.OptimalDenoiser(torch.randint(0, 256, (9, 4), dtype=torch.uint8))

    class Without(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.denoiser = denoiser

        def forward(self, x: torch.Tensor, exclude: torch.Tensor) -> torch.Tensor:
            return self.denoiser(x, 0.4, exclude=exclude)

    x, first, second = torch.randn(3, 4), torch.tensor([1, -1, 4]), torch.tensor([0, 8, -1])
    program = torch.export.export(Without(), (x, first)).module()
    compiled = torch.compile(Without(), fullgraph=True, backend="aot_eager")
    for exclude in (first, second):
        exact = denoiser(x, 0.4, exclude=exclude)
        torch.testing.assert_close(program(x, exclude), exact)
        torch.testing.assert_close(compiled(x, exclude), exact)


def test_derivatives_of_higher_order_and_vmap() -> None:
    stored = torch.randint(0, 256, (5, 4), dtype=torch.uint8)
    denoiser = geodiff.OptimalDenoiser(stored)
    others = geodiff.OptimalDenoiser(torch.cat([stored[:2], stored[3:]]))
    x = torch.randn(2, 4, dtype=torch.float64)
    exclude = torch.tensor([2, 2])

    def total(of: geodiff.OptimalDenoiser, **asked: torch.Tensor) -> object:
        return lambda at: of.log_prob(at, 0.8, **asked).sum()

    twice = torch.func.hessian(total(denoiser, exclude=exclude))(x)
    torch.testing.assert_close(twice, torch.func.hessian(total(others))(x), rtol=1e-8, atol=1e-8)
    each = torch.vmap(lambda at, which: denoiser(at[None], 0.8, exclude=which[None])[0])(x, torch.tensor([2, -1]))
    torch.testing.assert_close(each, denoiser(x, 0.8, exclude=torch.tensor([2, -1])), rtol=1e-6, atol=1e-6)


def test_someone_must_be_left() -> None:
    alone = geodiff.OptimalDenoiser(torch.rand(1, 4))
    message = "exclude: expected a point of weight above 0 beside the one that is excluded"
    with pytest.raises(ValueError, match=message):
        alone(torch.randn(2, 4), 1.0, exclude=torch.tensor([-1, 0]))
    classes = geodiff.OptimalDenoiser(torch.rand(3, 4), labels=torch.tensor([0, 1, 1]))
    with pytest.raises(ValueError, match=message):
        classes(torch.randn(1, 4), 1.0, torch.tensor([0]), exclude=torch.tensor([0]))
    heavy = geodiff.OptimalDenoiser(torch.rand(3, 4), log_weights=torch.tensor([0.0, -torch.inf, -torch.inf]))
    with pytest.raises(ValueError, match=message):
        heavy(torch.randn(1, 4), 1.0, exclude=torch.tensor([0]))


@pytest.mark.heavy
@pytest.mark.skipif("cpu" not in BACKENDS, reason=f"needs the compiled core: {geodiff.backends.available()['cpu']}")
def test_a_sweep_over_training_images_costs_little_more_than_a_plain_call() -> None:
    """1,000 queries at training images, each without its own: at most 1.5 times the call that sees all."""
    g = torch.Generator().manual_seed(0)
    data = torch.randint(0, 256, (20000, 768), dtype=torch.uint8, generator=g)
    denoiser = geodiff.OptimalDenoiser(data)
    x = reference.model_space(data[:1000], torch.float32)
    x = x + 0.5 * torch.randn(x.shape, generator=g)
    plain, without = [], []
    for _ in range(4):
        for times, exclude in ((plain, None), (without, torch.arange(1000))):
            start = time.perf_counter()
            denoiser(x, 0.5, exclude=exclude)
            times.append(time.perf_counter() - start)
    assert min(without) <= 1.5 * min(plain)
