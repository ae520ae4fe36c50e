"""The optimal velocity of flow matching: known values, the contract from end to end, both conventions, every path."""

import copy
import os
from pathlib import Path as File

import numpy as np
import pytest
import torch
from torch import Tensor

import geodiff
from geodiff import paths, reference
from geodiff.paths import Path
from tests import field
from tests.denoiser.compiled_graphs import Graphs

BACKENDS = [name for name in ("reference", "cpu") if geodiff.backends.is_available(name)]
#: t -> v* on the linear path, A: [0, 0], [1, 5], the sum and the sum of squares.
KNOWN = {
    0.001: (0.805869180302, 2.024601417770, -0.59799235396, 17.1062707725),
    0.3: (0.805853402864, 2.018077204411, -0.59980031966, 17.0389684163),
    0.5: (0.827628584598, -1.098821874386, -1.39753227555, 5.3336711684),
    0.7: (0.931450127960, 0.303066939893, -0.92616716154, 5.3812899142),
    0.999: (1.032826531690, 1.183393504893, -0.89048013817, 11.0094638975),
    1.0: (1.033272633205, 1.184880093645, -0.89033687716, 11.0225117577),
}
#: t -> r there
DENOISED = {
    0.3: (0.3349928834, -0.8614762088, -0.2771711667, 6.0104605774),
    0.5: (0.3241084480, 0.6982781733, 0.1220564044, 4.0729082889),
    0.7: (0.2470814868, 0.3416406617, -0.0479911911, 0.8096905963),
    0.999: (0.1082577561, -0.0230667678, 0.0144817400, 0.0597413709),
    1.0: (0.1075846973, -0.0237121487, 0.0146309668, 0.0597428526),
}
ALONG = [
    (paths.Linear("B"), 0.4, (-0.906038592368, 0.351189458151, 1.06629671606, 3.7666057592)),
    (paths.Cosine("B"), 0.4, (-0.726110550415, 0.681491301861, 1.04715409696, 2.9735727076)),
    (paths.VP("B"), 0.7, (-1.242801954105, 1.349904961370, 1.89936452225, 9.7479187850)),
    (paths.Sigmoid("A"), 0.4, (1.168435210832, -1.155667372256, -1.83849612847, 8.7806295742)),
]
TIMES = [1e-5, 1e-3, 0.03, 0.2, 0.5, 0.7, 0.85, 0.95, 0.999, 1 - 1e-6, 1.0]


def scale(data: Tensor) -> float:
    return float(reference.model_space(data, torch.float64).flatten(1).norm(dim=1).max())


def assert_contract(found: Tensor, expected: Tensor, data: Tensor | float, tol: float = 1e-5) -> None:
    """data: or max_i |x_i|, where that is known."""
    off = (found.double() - expected).flatten(1).norm(dim=1)
    reach = scale(data) if isinstance(data, Tensor) else data
    allowed = tol * expected.flatten(1).norm(dim=1).clamp(min=0.01 * reach)
    assert (off <= allowed).all(), f"velocity: {(off / allowed).max():.3g} of what is allowed"


@pytest.mark.parametrize("t", KNOWN)
def test_known_values(t: float) -> None:
    x = field.at(t)
    v = reference.velocity(x, field.points(), t)
    assert field.summary(v) == pytest.approx(KNOWN[t], abs=1e-9)
    other = reference.velocity(x, field.points(), 1 - t, path=paths.Linear("B"))
    torch.testing.assert_close(other, -v, rtol=0, atol=1e-12)
    stored = field.points().float()  # rounded, which moves v by 3e-8 / t
    expected = reference.velocity(x, stored, t)
    for backend in BACKENDS:
        denoiser = geodiff.OptimalDenoiser(stored, backend=backend)
        assert_contract(denoiser.velocity(x, t), expected, stored)
        assert_contract(denoiser.velocity(x, 1 - t, path=paths.Linear("B")), -expected, stored)


def test_known_data_and_what_is_denoised() -> None:
    """r = R(x / (1 - t); t / (1 - t)) = x - t v*; at t = 1, where the first form is none, the second."""
    assert field.summary(field.points()) == pytest.approx(
        (0.8414709848, 0.3345696965, 0.0585238672, 22.9153017825), abs=1e-9
    )
    assert field.summary(field.noise()) == pytest.approx(
        (1.1408573305, 1.1611679450, -0.8757059104, 10.9684035360), abs=1e-9
    )
    expected = (0.5767489042, -0.2560530475, -0.4571112626, 3.9111340435)
    assert field.summary(field.at(0.3)) == pytest.approx(expected, abs=1e-9)
    for t, expected in DENOISED.items():
        x = field.at(t)
        r = x - t * reference.velocity(x, field.points(), t)
        assert field.summary(r) == pytest.approx(expected, abs=1e-9)
        if t < 1:
            r = reference.posterior(x / (1 - t), field.points(), t / (1 - t)).mean
            assert field.summary(r) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("path", "t", "expected"), ALONG)
def test_known_values_on_other_paths(path: Path, t: float, expected: tuple[float, ...]) -> None:
    x = field.at(t, path)
    v = reference.velocity(x, field.points(), t, path=path)
    assert field.summary(v) == pytest.approx(expected, abs=1e-9)
    for backend in BACKENDS:
        denoiser = geodiff.OptimalDenoiser(field.points().float(), backend=backend)
        assert_contract(denoiser.velocity(x, t, path=path), v, field.points())


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("tol", [1e-5, 1e-3])
def test_contract_from_end_to_end(backend: str, dtype: torch.dtype, tol: float) -> None:
    """Queries on the path, on a data point exactly, halfway between two near points, and far away."""
    g = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (97, 3, 5, 5), dtype=torch.uint8, generator=g)
    pixels[1] = pixels[0]
    pixels[1, 0, 0, 0] ^= 1
    data = pixels if dtype == torch.uint8 else reference.model_space(pixels, torch.float32).to(dtype)
    points = reference.model_space(data, torch.float64)
    denoiser = geodiff.OptimalDenoiser(data, backend=backend, tol=tol)
    for t in TIMES:
        noise = torch.randn(5, 3, 5, 5, generator=g, dtype=torch.float64)
        x = paths.LINEAR.mix(points[[3, 0, 0, 7, 9]], noise, t)
        x[1] = (1 - t) * points[3]
        x[2] = (1 - t) * (points[0] + points[1]) / 2
        x[3] = 50 * x[3]
        x = x.float()
        expected = reference.velocity(x.double(), data, t)
        assert_contract(denoiser.velocity(x, t), expected, data, tol)
    mixed = torch.tensor(TIMES[1:6], dtype=torch.float64)
    expected = torch.cat([reference.velocity(x[b : b + 1].double(), data, float(mixed[b])) for b in range(5)])
    assert_contract(denoiser.velocity(x, mixed), expected, data, tol)
    assert_contract(denoiser.velocity(x, mixed.reshape(5, 1, 1, 1)), expected, data, tol)


def test_a_denoiser_to_contract_one_would_not_do() -> None:
    """Halfway between two near points r must be known to tol t, not to tol: the error is divided by t."""
    g = torch.Generator().manual_seed(2)
    data = torch.randn(600, 40, generator=g)
    denoiser = geodiff.OptimalDenoiser(data, tol=1e-2, backend=BACKENDS[-1])
    asked: list[float] = []
    posterior = denoiser._points.posterior

    def watched(batch, *arguments, **options):  # type: ignore[no-untyped-def]
        asked.append(batch.tol)
        return posterior(batch, *arguments, **options)

    denoiser._points.posterior = watched  # type: ignore[method-assign]
    x = (data[:4] + 0.01 * torch.randn(4, 40, generator=g)) * 0.98
    assert_contract(denoiser.velocity(x, 0.02), reference.velocity(x.double(), data, 0.02), data, 1e-2)
    assert min(asked) <= 1e-2 * 0.02


@pytest.mark.parametrize("path", [paths.Linear(), paths.Cosine("B"), paths.VP()], ids=lambda path: path.name)
def test_gradients(path: Path) -> None:
    """In x and t, against the reference differentiated by finite differences."""
    data, t = field.points().float(), 0.45
    denoiser = geodiff.OptimalDenoiser(data)
    x = field.at(t, path).requires_grad_()
    time = torch.full((2,), t, dtype=torch.float64, requires_grad=True)
    g = torch.randn(2, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    (denoiser.velocity(x, time, path=path) * g).sum().backward()
    h = 1e-6

    def value(moved: Tensor, at: float) -> Tensor:
        return (reference.velocity(moved, data, at, path=path) * g).sum()

    step = torch.randn(2, 6, dtype=torch.float64)
    by_x = (value(x.detach() + h * step, t) - value(x.detach() - h * step, t)) / (2 * h)
    by_t = (value(x.detach(), t + h) - value(x.detach(), t - h)) / (2 * h)
    assert x.grad is not None
    assert time.grad is not None
    assert float((x.grad * step).sum()) == pytest.approx(float(by_x), rel=1e-6)
    assert float(time.grad.sum()) == pytest.approx(float(by_t), rel=1e-6)


def test_conditions_reach_the_velocity() -> None:
    data = field.points().float()
    denoiser = geodiff.OptimalDenoiser(data, labels=torch.tensor([0, 0, 1, 1, 0, 1, 1, 0]))
    x = field.at(0.6)
    seen = denoiser.velocity(x, 0.6, torch.tensor([1, 0]), exclude=torch.tensor([2, 4]))
    for b, kept in enumerate([[3, 5, 6], [0, 1, 7]]):
        torch.testing.assert_close(seen[b], reference.velocity(x[b : b + 1], data[kept], 0.6)[0], rtol=1e-9, atol=1e-9)
    weighted = geodiff.OptimalDenoiser(data, log_weights=torch.arange(8.0))
    expected = (torch.arange(8.0).softmax(0)[:, None] * data).sum(0)
    torch.testing.assert_close(weighted.velocity(x, 1.0), x - expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("t", "path", "message"),
    [
        (
            0.0,
            paths.Linear(),
            "t: expected a time at which Linear A has a velocity, found 0; allowed within 0 .. 1, not",
        ),
        (1.0, paths.Linear("B"), "t: expected a time at which Linear B has a velocity, found 1"),
        (1.0, paths.Sigmoid(), "t: expected a time at which Sigmoid A has a velocity, found 1.*infinite slope"),
        (-0.1, paths.Linear(), "t: expected a time, found -0.1; allowed 0 <= t <= 1"),
        (float("nan"), paths.Linear(), "t: expected a time, found nan"),
        (torch.tensor([0.1, 0.2, 0.3]), paths.Linear(), "t: expected one time, or one for each of B = 2 queries"),
    ],
)
def test_bad_times(t: float, path: Path, message: str) -> None:
    denoiser = geodiff.OptimalDenoiser(field.points().float())
    with pytest.raises(ValueError, match=message):
        denoiser.velocity(torch.randn(2, 6), t, path=path)
    with pytest.raises(TypeError, match="t: expected a real time, found bool"):
        denoiser.velocity(torch.randn(2, 6), True)


@pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning")
@pytest.mark.parametrize(
    "path", [paths.Linear(), paths.Cosine("B"), paths.VP(), paths.Lipman("B")], ids=lambda p: p.name
)
def test_one_graph_of_a_compiler(path: Path) -> None:
    """For every batch size and time, with both tolerances that a time may ask for; and its gradients."""
    torch._dynamo.reset()
    denoiser = geodiff.OptimalDenoiser(torch.randn(50, 3, 4, generator=torch.Generator().manual_seed(0)))
    graphs = Graphs()
    compiled = torch.compile(
        lambda x, t: denoiser.velocity(x, t, path=path), backend=graphs, fullgraph=True, dynamic=True
    )
    for batch in (2, 3, 7):
        x, t = torch.randn(batch, 3, 4), torch.linspace(0.02, 0.98, batch, dtype=torch.float64)
        assert torch.equal(compiled(x, t), denoiser.velocity(x, t, path=path))
    assert graphs.count == 1
    with pytest.raises(ValueError, match=r"t: expected a time at which .* has a velocity, found 1\.5"):
        compiled(x, torch.full((7,), 1.5, dtype=torch.float64))
    torch._dynamo.reset()
    differentiable = torch.compile(
        lambda x, t: denoiser.velocity(x, t, path=path), backend="aot_eager", fullgraph=True, dynamic=True
    )
    x.requires_grad_()
    t.requires_grad_()
    g = torch.randn(x.shape)
    found = torch.autograd.grad((differentiable(x, t) * g).sum(), (x, t))
    expected = torch.autograd.grad((denoiser.velocity(x, t, path=path) * g).sum(), (x, t))
    torch.testing.assert_close(found, expected)


def test_functions_of_torch() -> None:
    denoiser = geodiff.OptimalDenoiser(field.points().float())
    x = torch.randn(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([0.01, 0.3, 0.6, 1.0], dtype=torch.float64)
    out = torch.tensor([3, -1, 0, 1])

    def one(y: Tensor, time: Tensor, j: Tensor) -> Tensor:
        return denoiser.velocity(y[None], time, exclude=j[None])[0]

    torch.testing.assert_close(torch.vmap(one)(x, t, out), denoiser.velocity(x, t, exclude=out), rtol=1e-5, atol=1e-5)
    by_rows = torch.func.vmap(torch.func.jacrev(one))(x, t, out)
    by_columns = torch.func.vmap(torch.func.jacfwd(one))(x, t, out)
    torch.testing.assert_close(by_rows, by_columns, rtol=1e-8, atol=1e-8)
    step = torch.randn(4, 6, dtype=torch.float64)
    moved = torch.autograd.functional.jvp(lambda y: denoiser.velocity(y, t, exclude=out), x, step)[1]
    torch.testing.assert_close(torch.einsum("bij,bj->bi", by_rows, step), moved, rtol=1e-6, atol=1e-8)
    with pytest.raises(ValueError, match=r"t: expected a time at which Linear A has a velocity, found 1\.1"):
        torch.vmap(one)(x, t + 0.5, out)


def test_an_exported_velocity_takes_other_times() -> None:
    class Field(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.denoiser = geodiff.OptimalDenoiser(field.points().float())

        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return self.denoiser.velocity(x, t)

    model, x = Field(), torch.randn(3, 6)
    program = torch.export.export(model, (x, torch.tensor(0.5))).module()
    for t in (0.01, 0.7, 1.0):
        torch.testing.assert_close(program(x, torch.tensor(t)), model(x, torch.tensor(t)))


def test_no_queries() -> None:
    denoiser = geodiff.OptimalDenoiser(field.points().float())
    assert denoiser.velocity(torch.empty(0, 6), 0.5).shape == (0, 6)


CIFAR = os.environ.get("GEODIFF_CIFAR10")


class Exact:
    """The posterior in float64: products where nothing cancels, differences for the few rows that count elsewhere."""

    def __init__(self, data: Tensor) -> None:
        self.points = torch.cat([reference.model_space(rows, torch.float64) for rows in data.flatten(1).split(1000)])
        self.squares = self.points.square().sum(1)

    def at(self, y: Tensor, level: float) -> tuple[Tensor, Tensor]:
        """r and the residual sum_i w_i (y - x_i), [B, d]; at a level of infinity r is the mean."""
        found = [self._one(one, level) for one in y]
        return torch.stack([r for r, _ in found]), torch.stack([residual for _, residual in found])

    def _one(self, y: Tensor, level: float) -> tuple[Tensor, Tensor]:
        away = self.squares - 2 * (self.points @ y) + y.square().sum()
        unsure = 1e-13 * (y.square().sum() + self.squares.max())
        near = (away - away.min() <= 2 * (unsure + 80 * level**2)).nonzero()[:, 0]  # of the rest each weighs < e^-80
        if len(near) > 2000:
            weights = (-away / (2 * level**2)).softmax(0)
            r = weights @ self.points
            return r, y - r
        differences = y - self.points[near]
        weights = (-differences.square().sum(1) / (2 * level**2)).softmax(0)
        return weights @ self.points[near], weights @ differences


EVERY = [kind(convention) for kind in paths.PATHS.values() for convention in ("A", "B")]


@pytest.mark.heavy
@pytest.mark.skipif(CIFAR is None, reason="GEODIFF_CIFAR10 names no .npy file of CIFAR-10's training images")
def test_contract_on_cifar10() -> None:
    """Every path in both conventions, at the levels of A t = 1e-5 .. 1: at one level all ask for the same posterior.

    Queries: on the path; halfway between a point and its nearest neighbour; far outside.
    """
    assert CIFAR is not None
    data = torch.from_numpy(np.load(File(CIFAR), mmap_mode="c")).permute(0, 3, 1, 2)
    denoiser = geodiff.OptimalDenoiser(data)
    points = reference.model_space(data[[0, 7, 11]], torch.float64).flatten(1)
    noise = torch.randn(3, 3072, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    own = geodiff.OptimalDenoiser(data[:2000])  # a near one of some
    near = own.posterior(points[1:2].reshape(1, 3, 32, 32), 0.5, topk=1, exclude=torch.tensor([7])).indices[0]
    points[1] = (points[1] + reference.model_space(data[near], torch.float64).flatten()) / 2
    exact, asked = Exact(data), 0
    reach = float(exact.squares.max().sqrt())
    for level in [float(paths.LINEAR.level(t)) for t in TIMES]:
        spread = torch.stack([noise[0], noise[1] if level > 0.05 else 0 * noise[1], 9 * noise[2]])
        y = points + min(level, 1e6) * spread
        r, residual = exact.at(y, level)
        for path in EVERY:
            last = float(path.level(1 - path.data_end))
            if not float(path.level(path.data_end)) < level <= last:
                continue
            t = 1 - path.data_end if level == last else float(path.time(level))
            scales = path.at(t)
            if not all(bool(scale.isfinite()) for scale in (*scales, scales.slope)):
                continue  # no velocity: an end with an infinite slope
            if level == np.inf:
                x, expected = scales.sigma * noise, scales.d_alpha * r + scales.d_sigma * noise
            else:
                x = scales.alpha * y
                expected = scales.d_alpha * r + scales.d_sigma * (residual / float(scales.level))
            found = denoiser.velocity(x.reshape(3, 3, 32, 32), t, path=path)
            assert_contract(found.flatten(1), expected, reach)
            asked += 1
    assert asked >= 150
    for t in TIMES[:-1]:  # queries as float32 rounds them
        x = paths.LINEAR.mix(points, noise, t).float()
        r, residual = exact.at(x.double() / (1 - t), t / (1 - t))
        assert_contract(denoiser.velocity(x.reshape(3, 3, 32, 32), t).flatten(1), residual * (1 - t) / t - r, reach)


def test_the_contract_follows_data_that_change() -> None:
    """What |v| near 0 is measured against is the largest point, as it is now."""
    data = torch.rand(6, 4)
    denoiser = geodiff.OptimalDenoiser(data)
    x = torch.randn(2, 4)
    denoiser.velocity(x, 0.5)
    before = denoiser._points.reach
    data.mul_(3)
    denoiser.velocity(x, 0.5)
    assert denoiser._points.reach == pytest.approx(3 * before)
    assert copy.deepcopy(denoiser)._points.reach == pytest.approx(3 * before)
