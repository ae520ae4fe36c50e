"""Contract 1 of the Triton backend on a real GPU: every dtype, path and kind of size, at the sizes that matter."""

import pytest
import torch
from torch import Tensor

from geodiff import OptimalDenoiser, reference
from geodiff.data import load
from geodiff.measure import check
from tests.gpu.needed import need_backend, needed

DTYPES = (torch.uint8, torch.float16, torch.bfloat16, torch.float32)
SIGMAS = (1e-3, 0.03, 0.3, 1.0, 3.0, 10.0, 80.0, 1e3)


@pytest.fixture(autouse=True)
def _triton(device: torch.device) -> None:
    need_backend("triton")


def some_data(n: int, d: int, stored: torch.dtype) -> Tensor:
    """Smooth pictures, whose points lie at very different distances, with exact duplicates."""
    walk = torch.randn(n, d, device="cuda").cumsum(1)
    points = (walk / walk.abs().amax(1, keepdim=True)).clamp(-1, 1) * 0.7 + 0.2
    points[-1] = points[0]
    return ((points + 1) * 127.5).round().clamp(0, 255).to(torch.uint8) if stored == torch.uint8 else points.to(stored)


def errors(denoiser: OptimalDenoiser, data: Tensor, x: Tensor, sigma: float) -> tuple[float, float]:
    """(largest relative error of the mean, largest error of log_prob in units of what is allowed)."""
    found = denoiser.posterior(x, sigma)
    expected = reference.posterior(x, data, sigma)
    norm = max(float(reference.model_space(part, torch.float64).norm(dim=1).max()) for part in data.split(4096))
    error = (found.mean - expected.mean).norm(dim=1) / expected.mean.norm(dim=1).clamp_min(0.01 * norm)
    log_prob = (found.log_prob - expected.log_prob).abs() / (1e-3 + 1e-6 * expected.log_prob.abs())
    return float(error.nan_to_num(nan=torch.inf).max()), float(log_prob.nan_to_num(nan=torch.inf).max())


@pytest.mark.parametrize("stored", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("n", "d"), [(1, 1), (1, 3072), (127, 65), (1025, 129), (5003, 3072), (2049, 12288), (20000, 784)]
)
def test_contract(n: int, d: int, stored: torch.dtype) -> None:
    data = some_data(n, d, stored)
    denoiser = OptimalDenoiser(data, backend="triton")
    points = reference.model_space(data[:: max(1, n // 64)], torch.float64)
    for sigma in SIGMAS:
        for batch in (1, 17, 130):
            x = points[torch.arange(batch, device="cuda") % len(points)]
            x = x + sigma * torch.randn(batch, d, device="cuda", dtype=torch.float64)
            error, log_prob = errors(denoiser, data, x, sigma)
            assert error <= 1e-5, f"sigma {sigma:g}, B {batch}"
            assert log_prob <= 1, f"sigma {sigma:g}, B {batch}"


def test_check_passes_on_digits() -> None:
    broken = [row for row in check.run(load("digits"), backends=["triton"]) if not row.ok]
    assert not broken, f"{len(broken)} cells, the worst {max(broken, key=lambda row: row.error)}"


def test_rows_beyond_two_gigabytes_are_addressed_in_64_bits() -> None:
    n, d = 2**18 + 1, 2**13 + 1  # n d > 2^31
    if torch.cuda.mem_get_info()[0] < 6 * 2**30:
        needed("less than 6 GiB of GPU memory are free")
    data = torch.randint(0, 256, (n, d), dtype=torch.uint8, device="cuda")
    denoiser = OptimalDenoiser(data, backend="triton")
    x = reference.model_space(data[-2:], torch.float64)
    found = denoiser.posterior(x, 0.5, topk=1)
    assert found.indices[:, 0].tolist() == [n - 2, n - 1]
    assert float((found.mean - x).norm(dim=1).max() / x.norm(dim=1).max()) <= 1e-5


@pytest.mark.parametrize("stored", DTYPES, ids=str)
def test_same_input_gives_the_same_bits(stored: torch.dtype) -> None:
    data = some_data(5003, 3072, stored)
    denoiser = OptimalDenoiser(data, backend="triton")
    x = torch.randn(20, 3072, device="cuda") * 40
    assert denoiser(x, 40.0).equal(denoiser(x, 40.0))


@pytest.mark.parametrize("batch", [1, 130])
def test_memory_stays_within_the_data_and_a_gigabyte(batch: int) -> None:
    data = torch.randint(0, 256, (100_000, 3072), dtype=torch.uint8, device="cuda")
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    denoiser = OptimalDenoiser(data, backend="triton")
    for sigma in (0.1, 5.0, 80.0):
        denoiser(torch.randn(batch, 3072, device="cuda") * sigma, sigma)
    assert torch.cuda.max_memory_allocated() - before <= 2**30
