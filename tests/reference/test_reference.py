"""The reference against sums in 60 decimal digits, against identities, and at the edges."""

import math
from collections.abc import Sequence
from decimal import Decimal, localcontext

import pytest
import torch
from torch import Tensor

from geodiff import reference
from geodiff.base.posterior import Posterior
from geodiff.reference import formula, moments

STORED = [torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64]
SIGMAS = [1e-3, 0.03, 0.5, 2.0, 80.0, 1e3]


def stored_data(dtype: torch.dtype, n: int, *shape: int, seed: int = 0) -> Tensor:
    """n points in [-1, 1] as `dtype` stores them; of 3 or more, the last two are a duplicate and a near-duplicate."""
    generator = torch.Generator().manual_seed(seed)
    levels = torch.randint(0, 256, (n, *shape), dtype=torch.uint8, generator=generator)
    if n > 2:
        levels[-2:] = levels[0]
        levels[-1].view(-1)[0] ^= 1  # one pixel, one level apart
    return levels if dtype == torch.uint8 else (levels.to(torch.float64) / 127.5 - 1).to(dtype)


def noisy_points(data: Tensor, b: int, sigma: float, dtype: torch.dtype = torch.float64, seed: int = 1) -> Tensor:
    """b noisy data points, as the denoiser meets them; the first is a noisy duplicate."""
    generator = torch.Generator().manual_seed(seed)
    clean = reference.model_space(data, torch.float64)[torch.arange(b) % len(data)]
    return (clean + sigma * torch.randn(clean.shape, dtype=torch.float64, generator=generator)).to(dtype)


def exactly(x: Sequence[float], data: Tensor, sigma: float) -> tuple[list[float], float, float, float]:
    """Mean, log_prob, entropy and ess of one query x [d], by the formulas in 60-digit decimal arithmetic."""
    with localcontext() as context:
        context.prec = 60
        if data.dtype == torch.uint8:
            points = [[Decimal(u) / Decimal("127.5") - 1 for u in point] for point in data.flatten(1).tolist()]
        else:
            points = [[Decimal(value) for value in point] for point in data.flatten(1).tolist()]
        query, level = [Decimal(value) for value in x], Decimal(sigma)
        logits = [-sum((a - b) ** 2 for a, b in zip(query, p, strict=True)) / (2 * level**2) for p in points]
        best = max(logits)
        masses = [(logit - best).exp() for logit in logits]
        total = sum(masses, Decimal(0))
        weights = [mass / total for mass in masses]
        mean = [sum(w * p[j] for w, p in zip(weights, points, strict=True)) for j in range(len(query))]
        two_pi = 2 * Decimal("3.14159265358979323846264338327950288419716939937510582097494")
        log_prob = best + total.ln() - Decimal(len(points)).ln() - len(query) * (two_pi * level**2).ln() / 2
        entropy = -sum(w * w.ln() for w in weights if w > 0)
        ess = 1 / sum(w * w for w in weights)
        return [float(value) for value in mean], float(log_prob), float(entropy), float(ess)


@pytest.mark.parametrize("dtype", STORED, ids=str)
@pytest.mark.parametrize("sigma", SIGMAS)
def test_float64_is_exact(dtype: torch.dtype, sigma: float) -> None:
    data = stored_data(dtype, 19, 2, 3)
    x = noisy_points(data, 4, sigma)
    found = reference.posterior(x, data, sigma)
    for b in range(len(x)):
        mean, log_prob, entropy, ess = exactly(x[b].flatten().tolist(), data, sigma)
        # A logit of size |x|^2 / 2 sigma^2 is known to its last digit, and the weights are as good as the logits.
        digits = 1e-13 + 1e-15 * (1 + x[b].abs().max().item()) ** 2 / sigma**2
        assert (found.mean[b].flatten() - torch.tensor(mean, dtype=torch.float64)).abs().max() <= digits
        assert found.log_prob[b].item() == pytest.approx(log_prob, rel=1e-12, abs=digits)
        assert found.entropy[b].item() == pytest.approx(entropy, abs=10 * digits)
        assert found.ess[b].item() == pytest.approx(ess, rel=10 * digits)


@pytest.mark.parametrize("sigma", [0.1, 2.0, 80.0])
@pytest.mark.parametrize("dtype", STORED, ids=str)
def test_float32_queries_stay_near_float64(sigma: float, dtype: torch.dtype) -> None:
    data = stored_data(dtype, 50, 1, 7, 5)
    x = noisy_points(data, 9, sigma, torch.float32)
    found, exact = reference.posterior(x, data, sigma, topk=2), reference.posterior(x.double(), data, sigma, topk=2)
    assert {field.dtype for field in (found.mean, found.log_prob, found.entropy, found.ess, found.weights)} == {x.dtype}
    assert (found.mean - exact.mean).norm() <= 2e-4 * exact.mean.norm()
    assert torch.allclose(found.log_prob.double(), exact.log_prob, rtol=1e-6, atol=1e-3)
    assert torch.allclose(found.weights.double(), exact.weights, atol=1e-3)


def test_each_query_has_its_own_sigma() -> None:
    data = stored_data(torch.uint8, 30, 5)
    x = noisy_points(data, len(SIGMAS), 1.0)
    together = reference.posterior(x, data, torch.tensor(SIGMAS, dtype=torch.float64)[:, None], topk=3)
    for b, sigma in enumerate(SIGMAS):
        alone = reference.posterior(x[b : b + 1], data, sigma, topk=3)
        assert torch.allclose(together.mean[b], alone.mean[0], rtol=1e-12, atol=1e-14)
        assert together.log_prob[b] == pytest.approx(alone.log_prob.item(), rel=1e-12)
        assert together.indices[b].tolist() == alone.indices[0].tolist()


def test_large_sigma_gives_the_mean_and_small_sigma_the_nearest_point() -> None:
    data = stored_data(torch.float32, 40, 3, 4)
    x = noisy_points(data, 6, 0.3)
    far = reference.posterior(x, data, 1e3)
    assert torch.allclose(far.mean, data.double().mean(0).expand_as(x), atol=1e-5)
    assert torch.allclose(far.entropy, torch.tensor(math.log(40), dtype=torch.float64))
    assert torch.allclose(far.ess, torch.tensor(40.0, dtype=torch.float64))
    near = reference.posterior(x[1:], data, 1e-3)
    nearest = torch.cdist(x[1:].flatten(1), data.double().flatten(1)).argmin(1)
    assert torch.equal(near.mean, data.double()[nearest])
    assert torch.equal(near.ess, torch.ones(5, dtype=torch.float64))
    assert torch.equal(near.entropy, torch.zeros(5, dtype=torch.float64))


@pytest.mark.parametrize("tile", [1, 40, 2**17])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_exact_duplicates_share_their_weight_in_whatever_tile_they_lie(
    tile: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(formula, "_TILE_CPU", tile)
    data = stored_data(torch.uint8, 31, 13)
    copies = [0, 3, 17, 29, 30]
    data[copies] = data[7].clone()
    x = noisy_points(data[7:8], 1, 0.01, dtype)
    found = reference.posterior(x, data, 1e-3, topk=8)
    assert found.indices[0, :6].tolist() == sorted([*copies, 7])
    assert found.weights[0].tolist() == pytest.approx([1 / 6] * 6 + [0] * 2, rel=1e-6)
    assert found.ess.item() == pytest.approx(6, rel=1e-6)
    assert found.entropy.item() == pytest.approx(math.log(6), rel=1e-6)
    assert torch.allclose(found.mean, reference.model_space(data[7], dtype), rtol=1e-6)


def test_exact_duplicates_are_drawn_alike_in_whatever_tile_they_lie() -> None:
    """At so small a sigma that one rounding of a distance decides; the last of 31 rows must not be a tile by itself."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)  # which share the sum of a single row this long
    try:
        data = torch.randn(31, 40_000, generator=torch.Generator().manual_seed(0))
        copies = [0, 17, 30]
        data[copies] = data[7].clone()
        x = noisy_points(data[[7, 7, 7]], 3, 0.01)
        uniform = (torch.arange(4.0).double() + 0.5) / 4
        assert moments.draw(x, data, 1e-10, uniform.expand(3, 4)).tolist() == [[0, 7, 17, 30]] * 3
    finally:
        torch.set_num_threads(threads)


def test_equal_points_are_named_in_the_order_of_their_indices() -> None:
    data = torch.zeros(100, 3)
    found = reference.posterior(torch.ones(2, 3), data, 1.0, topk=100)
    assert found.indices.tolist() == [list(range(100))] * 2


def test_topk_finds_the_nearest_also_where_weights_underflow() -> None:
    data = torch.arange(10.0)[:, None]
    found = reference.posterior(torch.tensor([[6.9]]), data, 1e-3, topk=4)
    assert found.indices.tolist() == [[7, 6, 8, 5]]
    assert found.weights.tolist() == [[1.0, 0.0, 0.0, 0.0]]


@pytest.mark.parametrize("block", [1, 60, 2**20])
@pytest.mark.parametrize("tile", [1, 100, 2**17])
def test_tiles_and_blocks_do_not_show(tile: int, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    data = stored_data(torch.uint8, 29, 4, 3)
    x = noisy_points(data, 5, 0.7)
    weights = torch.linspace(-2, 2, 29)
    whole = reference.posterior(x, data, 0.7, topk=3, log_weights=weights)
    monkeypatch.setattr(formula, "_TILE_CPU", tile)
    monkeypatch.setattr(formula, "_BLOCK", block)
    found = reference.posterior(x, data, 0.7, topk=3, log_weights=weights)
    for name in ("mean", "log_prob", "entropy", "ess", "weights"):
        assert torch.allclose(getattr(found, name), getattr(whole, name), rtol=1e-12, atol=1e-14), name
    assert torch.equal(found.indices, whole.indices)


def test_only_a_tile_of_the_data_is_ever_converted(monkeypatch: pytest.MonkeyPatch) -> None:
    data = stored_data(torch.uint8, 600, 3, 16, 16)
    x = noisy_points(data[:1], 1, 1.0)
    sizes = []
    convert = reference.model_space

    def watched(data: Tensor, dtype: torch.dtype) -> Tensor:
        sizes.append(data.numel())
        return convert(data, dtype)

    monkeypatch.setattr(formula, "model_space", watched)
    reference.posterior(x, data, 1.0)
    assert sum(sizes) == 2 * data.numel()
    assert max(sizes) <= formula._TILE_CPU


def test_the_score_is_the_gradient_of_log_prob() -> None:
    data = stored_data(torch.uint8, 25, 6)
    x = noisy_points(data, 4, 0.8).requires_grad_()
    sigma = torch.tensor([0.3, 0.8, 2.0, 20.0], dtype=torch.float64)
    found = reference.posterior(x, data, sigma)
    (gradient,) = torch.autograd.grad(found.log_prob.sum(), x)
    assert torch.allclose(gradient, (found.mean - x) / sigma[:, None] ** 2, rtol=1e-9, atol=1e-12)


def test_the_jacobian_is_the_covariance_over_sigma_squared() -> None:
    data, sigma = stored_data(torch.float32, 25, 4), 0.7
    x = noisy_points(data, 1, sigma)
    jacobian = torch.func.jacrev(lambda x: reference.denoise(x, data, sigma)[0])(x)[:, 0]
    found = reference.posterior(x, data, sigma, topk=25)
    weights = torch.zeros(25, dtype=torch.float64).scatter(0, found.indices[0], found.weights[0])
    centred = data.double() - found.mean
    assert torch.allclose(jacobian, (weights[:, None] * centred).T @ centred / sigma**2, rtol=1e-9, atol=1e-12)


def test_log_prob_is_a_density() -> None:
    data = torch.tensor([[-1.0], [0.25], [2.0]])
    grid = torch.linspace(-12, 12, 4001, dtype=torch.float64)
    density = reference.posterior(grid[:, None], data, 0.5).log_prob.exp()
    assert torch.trapezoid(density, grid).item() == pytest.approx(1, abs=1e-12)


def test_log_weights_count_points_as_copies_do() -> None:
    data = stored_data(torch.float32, 4, 3)
    x = noisy_points(data, 3, 0.6)
    counts = torch.tensor([1, 3, 0, 2])
    weighted = reference.posterior(x, data, 0.6, log_weights=counts.double().log() + 5, topk=4)
    copied = reference.posterior(x, data.repeat_interleave(counts, 0), 0.6)
    assert torch.allclose(weighted.mean, copied.mean, rtol=1e-12)
    assert torch.allclose(weighted.log_prob, copied.log_prob, rtol=1e-12)
    assert weighted.indices[:, -1].tolist() == [-1, -1, -1]  # three points are seen
    assert weighted.weights[:, -1].tolist() == [0.0, 0.0, 0.0]
    assert not any(field.isnan().any() for field in (weighted.entropy, weighted.ess))


def fields(found: Posterior) -> list[tuple[int, ...]]:
    return [tuple(getattr(found, name).shape) for name in ("mean", "log_prob", "entropy", "ess", "indices", "weights")]


@pytest.mark.parametrize("sigma", [1e-3, 1.0, 1e3])
def test_one_point_is_always_the_answer(sigma: float) -> None:
    data = stored_data(torch.uint8, 1, 1)
    found = reference.posterior(torch.tensor([[-3.0], [0.1]], dtype=torch.float64), data, sigma, topk=1)
    assert fields(found) == [(2, 1), (2,), (2,), (2,), (2, 1), (2, 1)]
    assert torch.equal(found.mean, reference.model_space(data, torch.float64).expand(2, 1))
    assert found.entropy.tolist() == [0, 0]
    assert found.ess.tolist() == [1, 1]
    assert found.weights.tolist() == [[1], [1]]


@pytest.mark.parametrize("sigma", [1.0, torch.ones(0)], ids=["number", "tensor"])
def test_no_queries(sigma: float | Tensor) -> None:
    data = stored_data(torch.uint8, 6, 1, 2, 3)
    found = reference.posterior(torch.zeros(0, 1, 2, 3), data, sigma, topk=2)
    assert fields(found) == [(0, 1, 2, 3), (0,), (0,), (0,), (0, 2), (0, 2)]
    assert found.mean.dtype == torch.float32
    assert found.indices.dtype == torch.int64


def test_no_topk_is_an_empty_column() -> None:
    found = reference.posterior(torch.zeros(3, 2), torch.zeros(5, 2), 1.0)
    assert fields(found)[-2:] == [(3, 0), (3, 0)]


def test_memory_order_does_not_matter() -> None:
    data = stored_data(torch.uint8, 11, 4, 4, 3)
    x = noisy_points(data, 5, 0.5)
    plain = reference.posterior(x.permute(0, 3, 1, 2).contiguous(), data.permute(0, 3, 1, 2).contiguous(), 0.5)
    strided = reference.posterior(x.permute(0, 3, 1, 2), data.permute(0, 3, 1, 2), 0.5)
    assert torch.equal(plain.mean, strided.mean)
    assert torch.equal(plain.log_prob, strided.log_prob)


def test_many_dimensions() -> None:
    data = stored_data(torch.uint8, 5, 3, 256, 256)
    x = noisy_points(data, 2, 50.0)
    found = reference.posterior(x, data, 50.0)
    points = reference.model_space(data, torch.float64).flatten(1)
    weights = (-(x.flatten(1)[:, None] - points).square().sum(2) / (2 * 50.0**2)).softmax(1)
    assert torch.allclose(found.mean.flatten(1), weights @ points, rtol=1e-9, atol=1e-12)


def test_settings_of_the_caller_do_not_reach_the_numbers() -> None:
    data = stored_data(torch.uint8, 40, 64)
    x = noisy_points(data, 4, 1.0, torch.float32)
    plain = reference.denoise(x, data, 1.0)
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = reference.denoise(x, data, 1.0)
    finally:
        torch.set_float32_matmul_precision(precision)
    assert torch.equal(found, plain)


def test_nothing_is_written_to() -> None:
    data, x = stored_data(torch.float64, 9, 4), torch.ones(2, 4, dtype=torch.float64)
    before = data.clone()
    reference.posterior(x, data, 0.5, topk=2, log_weights=torch.zeros(9))
    assert torch.equal(data, before)
    assert torch.equal(x, torch.ones_like(x))


@pytest.mark.parametrize("given", [False, True], ids=["norms worked out", "norms given"])
def test_two_products_are_the_same_formula(given: bool) -> None:
    data = reference.model_space(stored_data(torch.uint8, 60, 1, 5, 5), torch.float64)
    x = noisy_points(data, 7, 2.0)
    sigma = torch.linspace(0.5, 40, 7)
    norms = data.flatten(1).square().sum(1) / 2 if given else None
    found = reference.two_product(x, data, sigma, norms)
    assert found.shape == x.shape
    assert torch.allclose(found, reference.denoise(x, data, sigma), rtol=1e-9, atol=1e-12)


GOOD_X, GOOD_DATA = torch.zeros(2, 3), torch.zeros(5, 3)


@pytest.mark.parametrize(
    ("name", "error", "x", "data", "options"),
    [
        ("x", TypeError, GOOD_X.half(), GOOD_DATA, {}),
        ("x", TypeError, GOOD_X.tolist(), GOOD_DATA, {}),
        ("x", ValueError, torch.zeros(2, 4), GOOD_DATA, {}),
        ("x", ValueError, torch.full((2, 3), math.nan), GOOD_DATA, {}),
        ("x", ValueError, torch.full((2, 3), 1e30), GOOD_DATA, {}),
        ("data", TypeError, GOOD_X, GOOD_DATA.int(), {}),
        ("data", ValueError, GOOD_X, torch.zeros(5), {}),
        ("data", ValueError, GOOD_X, torch.zeros(0, 3), {}),
        ("data", ValueError, GOOD_X, torch.full((5, 3), math.inf), {}),
        ("data", ValueError, GOOD_X, torch.full((5, 3), 1e300, dtype=torch.float64), {}),
        ("data", ValueError, GOOD_X, GOOD_DATA.to("meta"), {}),
        ("sigma", ValueError, GOOD_X, GOOD_DATA, {"sigma": 0}),
        ("sigma", ValueError, GOOD_X, GOOD_DATA, {"sigma": torch.ones(3)}),
        ("sigma", TypeError, GOOD_X, GOOD_DATA, {"sigma": "1"}),
        ("topk", ValueError, GOOD_X, GOOD_DATA, {"topk": 6}),
        ("topk", TypeError, GOOD_X, GOOD_DATA, {"topk": 1.5}),
        ("log_weights", ValueError, GOOD_X, GOOD_DATA, {"log_weights": torch.zeros(4)}),
    ],
)
def test_bad_input_is_named(
    name: str, error: type[Exception], x: Tensor, data: Tensor, options: dict[str, object]
) -> None:
    with pytest.raises(error, match=rf"^{name}: expected .* found .*; allowed "):
        reference.posterior(x, data, **{"sigma": 1.0, **options})  # type: ignore[arg-type]
