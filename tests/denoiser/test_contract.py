"""Contract 1 and 4 on every instruction set this machine has: exact, deterministic, independent of the batch.

The oracle is the float64 difference form. Outputs start out as NaN (deterministic mode fills `torch.empty`), so that a
row left unwritten cannot pass by luck.
"""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

import geodiff
from geodiff import reference
from geodiff.backends import cpu

DTYPES = [torch.uint8, torch.float16, torch.bfloat16, torch.float32]
SIGMAS = [1e-3, 0.01, 0.1, 0.5, 1, 2, 5, 10, 40, 80, 1000]


@pytest.fixture(autouse=True)
def _poisoned_buffers() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(params=cpu.isas())
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    with cpu.use_isa(request.param):
        yield request.param


def _generator(*seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(hash(seed) % 2**31)


def _data(n: int, d: int, dtype: torch.dtype) -> Tensor:
    """Smooth random points with an exact duplicate and a near-duplicate (one value, one level apart) where n allows."""
    g = _generator(n, d)
    points = torch.randint(0, 256, (n, d), generator=g).float()
    points = (points * 0.3 + points.mean(1, keepdim=True) * 0.7).round()
    if n > 4:
        points[-1] = points[0]
        points[-2] = points[1]
        points[-2, 0] = (points[1, 0] + 1) % 256
    return points.to(torch.uint8) if dtype == torch.uint8 else (points / 127.5 - 1).to(dtype)


def _queries(data: Tensor, batch: int, sigma: float, dtype: torch.dtype = torch.float32) -> Tensor:
    g = _generator(len(data), batch)
    chosen = torch.randint(len(data), (batch,), generator=g)
    if batch > 2 and len(data) > 4:
        chosen[0], chosen[1] = 0, 1  # the duplicated points
    return (
        reference.model_space(data, torch.float64)[chosen]
        + sigma * torch.randn(batch, *data.shape[1:], generator=g, dtype=torch.float64)
    ).to(dtype)


def _assert_exact(posterior: geodiff.Posterior, x: Tensor, data: Tensor, sigma: float | Tensor, name: str) -> None:
    _assert_equals(posterior, reference.posterior(x.double(), data, sigma), data, name)


def _assert_equals(posterior: geodiff.Posterior, exact: geodiff.Posterior, data: Tensor, name: str) -> None:
    largest = reference.model_space(data, torch.float64).flatten(1).norm(dim=1).max()
    scale = exact.mean.flatten(1).norm(dim=1).clamp_min(0.01 * largest)
    error = ((posterior.mean.double() - exact.mean).flatten(1).norm(dim=1) / scale).amax().item()
    assert error <= 1e-5, f"{name}: mean off by {error:.2e} of its norm"
    allowed = 1e-3 + 1e-6 * exact.log_prob.abs()
    worst = ((posterior.log_prob - exact.log_prob).abs() / allowed).amax().item()
    assert worst <= 1, f"{name}: log_prob off by {worst:.2e} of what is allowed"
    assert (posterior.entropy - exact.entropy).abs().amax() <= 1e-4, name
    assert ((posterior.ess - exact.ess).abs() <= 1e-4 * exact.ess).all(), name


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("n", "d"),
    # One row, one column, one off a tile or a register in both directions, and more columns than a block holds.
    [(1, 1), (1, 70), (2, 1), (255, 65), (257, 63), (16, 1025), (129, 193), (1300, 17), (33, 5000)],
)
def test_every_shape_and_dtype(n: int, d: int, dtype: torch.dtype) -> None:
    data = _data(n, d, dtype)
    denoisers = {isa: geodiff.OptimalDenoiser(data, backend="cpu") for isa in cpu.isas()}
    for sigma in SIGMAS:
        for batch in (1, 7, 65):
            x = _queries(data, batch, sigma)
            exact = reference.posterior(x.double(), data, sigma)  # what costs most here: once for all instruction sets
            for isa, denoiser in denoisers.items():
                with cpu.use_isa(isa):
                    found = denoiser.posterior(x, sigma)
                _assert_equals(found, exact, data, f"{isa} {dtype} N={n} d={d} sigma={sigma} B={batch}")


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32], ids=str)
def test_a_level_for_each_query(isa: str, dtype: torch.dtype) -> None:
    data = _data(900, 200, dtype)
    sigma = torch.logspace(-3, 3, 31, dtype=torch.float64)
    x = torch.cat([_queries(data, 1, level) for level in sigma.tolist()])
    denoiser = geodiff.OptimalDenoiser(data, backend="cpu")
    _assert_exact(denoiser.posterior(x, sigma), x, data, sigma, f"{isa} {dtype}")


def test_each_path_is_taken_and_exact(isa: str) -> None:
    """Screening, dense and exact answers are all reached by plain use: otherwise the tests above say too much."""
    data = _data(3000, 200, torch.uint8)
    denoiser = geodiff.OptimalDenoiser(data, backend="cpu")
    taken = set()
    for sigma in (0.01, 5.0, 100.0):
        x = _queries(data, 5, sigma)
        _assert_exact(denoiser.posterior(x, sigma), x, data, sigma, f"{isa} sigma={sigma}")
        taken |= _paths(denoiser)
    small = geodiff.OptimalDenoiser(_data(30, 20, torch.uint8), backend="cpu")
    small.posterior(_queries(small.data, 2, 1.0), 1.0)
    taken |= _paths(small)
    assert {"screened", "dense", "exact"} <= taken


def test_flat_queries_between_flat_points(isa: str) -> None:
    """Every coordinate's rounding error points the same way: the worst case of a bound that hopes for cancellation."""
    levels = torch.arange(0, 256, dtype=torch.uint8)[:, None].repeat(1, 300)
    denoiser = geodiff.OptimalDenoiser(levels, backend="cpu")
    for sigma in (0.01, 0.05, 0.3, 1.0, 10.0):
        x = torch.linspace(-1, 1, 23)[:, None].repeat(1, 300) + 0.3 / 127.5
        _assert_exact(denoiser.posterior(x, sigma), x, levels, sigma, f"{isa} sigma={sigma}")


def test_mean_near_zero_is_held_to_the_size_of_the_data(isa: str) -> None:
    """Antipodal points: r* nearly vanishes, and the error may be 1e-5 of 0.01 max |x_i| only."""
    half = torch.randn(400, 96, generator=_generator(1))
    data = torch.cat([half, -half])
    denoiser = geodiff.OptimalDenoiser(data, backend="cpu")
    for sigma in (3.0, 30.0, 300.0):
        x = 0.01 * torch.randn(9, 96, generator=_generator(2))
        _assert_exact(denoiser.posterior(x, sigma), x, data, sigma, f"{isa} sigma={sigma}")


def test_far_from_the_origin(isa: str) -> None:
    """Values of 1000 +- 1: in float32 every logit is lost to cancellation."""
    data = 1000 + torch.randn(700, 40, generator=_generator(3))
    denoiser = geodiff.OptimalDenoiser(data, backend="cpu")
    for sigma in (0.1, 1.0, 10.0):
        x = _queries(data, 7, sigma)
        _assert_exact(denoiser.posterior(x, sigma), x, data, sigma, f"{isa} sigma={sigma}")


def test_few_heavy_rows_off_the_origin(isa: str) -> None:
    """Where a few rows carry the weight, the dense pass corrects their logits, which float32 loses to cancellation."""
    data = 30 + torch.randn(2000, 256, generator=_generator(3))
    x = _queries(data, 16, 3.0)
    denoiser = geodiff.OptimalDenoiser(data, backend="cpu")
    _assert_exact(denoiser.posterior(x, 3.0), x, data, 3.0, isa)
    assert "dense" in _paths(denoiser)  # corrected, not handed to the float64 pass


@pytest.mark.parametrize("topk", [1, 5, 40])
@pytest.mark.parametrize("sigma", [1e-3, 0.3, 3.0, 50.0])
def test_top_k(isa: str, sigma: float, topk: int) -> None:
    data = _data(700, 130, torch.uint8)
    x = _queries(data, 9, sigma, torch.float64)
    found = geodiff.OptimalDenoiser(data, backend="cpu").posterior(x, sigma, topk=topk)
    exact = reference.posterior(x, data, sigma, topk=topk)
    assert torch.equal(found.indices, exact.indices)
    torch.testing.assert_close(found.weights, exact.weights, rtol=1e-5, atol=1e-12)


def test_the_limits_of_sigma(isa: str) -> None:
    data = _data(500, 90, torch.uint8)[2:-2]  # without the near-duplicates: the nearest point then stands alone
    points = reference.model_space(data, torch.float64)
    denoiser = geodiff.OptimalDenoiser(data, backend="cpu")
    x = _queries(data, 6, 0.01, torch.float64)
    torch.testing.assert_close(denoiser(x, 1000.0), points.mean(0).expand(6, -1), rtol=0, atol=2e-4)
    torch.testing.assert_close(denoiser.mean.double(), points.mean(0), rtol=0, atol=1e-6)
    nearest = points[torch.cdist(x, points).argmin(1)]
    torch.testing.assert_close(denoiser(x, 1e-3), nearest, rtol=0, atol=1e-7)


def test_duplicates_share_their_weight(isa: str) -> None:
    data = _data(300, 50, torch.uint8)
    data[7] = data[123] = data[250]
    x = reference.model_space(data[7:8], torch.float32)
    found = geodiff.OptimalDenoiser(data, backend="cpu").posterior(x, 1e-3, topk=4)
    assert found.indices[0, :3].tolist() == [7, 123, 250]
    torch.testing.assert_close(found.weights[0], torch.tensor([1 / 3, 1 / 3, 1 / 3, 0]))
    torch.testing.assert_close(found.mean, x)


@pytest.mark.parametrize("sigma", [0.01, 2.0, 60.0])
def test_same_call_same_bits(isa: str, sigma: float) -> None:
    data = _data(2000, 300, torch.uint8)
    x = _queries(data, 40, sigma)
    denoiser = geodiff.OptimalDenoiser(data, backend="cpu")
    assert torch.equal(denoiser(x, sigma), denoiser(x, sigma))


@pytest.mark.parametrize("sigma", [0.01, 2.0, 60.0])
def test_a_query_does_not_feel_the_others(isa: str, sigma: float) -> None:
    data = _data(2000, 300, torch.uint8)
    x = _queries(data, 70, sigma)
    denoiser = geodiff.OptimalDenoiser(data, backend="cpu")
    alone = torch.cat([denoiser(x[i : i + 1], sigma) for i in range(len(x))])
    torch.testing.assert_close(denoiser(x, sigma), alone, rtol=0, atol=2e-5)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_any_number_of_threads(isa: str, threads: int) -> None:
    data = _data(2500, 400, torch.uint8)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        denoiser = geodiff.OptimalDenoiser(data, backend="cpu")
        for sigma in (0.05, 3.0, 50.0):
            x = _queries(data, 11, sigma)
            _assert_exact(denoiser.posterior(x, sigma, topk=0), x, data, sigma, f"{isa} {threads} threads")
    finally:
        torch.set_num_threads(before)


def test_log_weights(isa: str) -> None:
    data = _data(800, 120, torch.uint8)
    log_weights = torch.randn(800, generator=_generator(5))
    log_weights[::7] = -torch.inf
    denoiser = geodiff.OptimalDenoiser(data, log_weights=log_weights, backend="cpu")
    for sigma in (0.05, 3.0, 100.0):
        x = _queries(data, 9, sigma, torch.float64)
        exact = reference.posterior(x, data, sigma, log_weights=log_weights)
        found = denoiser.posterior(x, sigma)
        assert ((found.mean - exact.mean).norm(dim=1) <= 1e-5 * exact.mean.norm(dim=1)).all()
        torch.testing.assert_close(found.log_prob, exact.log_prob, rtol=1e-6, atol=1e-3)


def _paths(denoiser: geodiff.OptimalDenoiser) -> set[str]:
    engine = denoiser._points.engines.serving()
    assert isinstance(engine, cpu.CpuEngine)
    return {cpu.PATHS[path] for path in engine.last_paths.tolist()}
