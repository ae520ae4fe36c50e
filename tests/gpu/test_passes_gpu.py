"""Each pass of the CUDA core over uint8 rows on a GPU: those that GEODIFF_CUDA_PASS names, where they serve."""

import pytest
import torch

from geodiff import OptimalDenoiser, reference
from geodiff.backends.cuda import PASSES, CudaEngine
from tests.gpu.needed import need_backend
from tests.gpu.test_gpu_contract import SIGMAS, stored


def opened(data: torch.Tensor, name: str, monkeypatch: pytest.MonkeyPatch) -> OptimalDenoiser:
    need_backend("cuda")
    monkeypatch.setenv("GEODIFF_CUDA_PASS", name)
    denoiser = OptimalDenoiser(data, backend="cuda")
    engine = denoiser._points.engines.serving()
    assert isinstance(engine, CudaEngine)
    if torch.cuda.get_device_capability(data.device) == (9, 0):
        plan = engine._data.plan(rows=len(data), batch=1)
        assert {"stream": plan.streams, "dense": plan.dense, "fused": plan.fused}[name]
    return denoiser


@pytest.mark.parametrize("name", PASSES)
@pytest.mark.parametrize(
    ("n", "d", "batches"),
    [(1, 16, (1, 16)), (257, 784, (1, 4, 7, 16)), (5000, 3072, (1, 3, 8, 16)), (130, 12_288, (1, 4))],
)
def test_contract(
    name: str, n: int, d: int, batches: tuple[int, ...], device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = stored(n, d, torch.uint8, device)
    denoiser = opened(data, name, monkeypatch)
    points = reference.model_space(data, torch.float64)
    least = 0.01 * points.norm(dim=1).max()
    for batch in batches:
        for sigma in SIGMAS:
            x = points[torch.arange(batch) % n] + sigma * torch.randn(batch, d, device=device, dtype=torch.float64)
            found, expected = denoiser.posterior(x, sigma), reference.posterior(x, data, sigma)
            error = (found.mean - expected.mean).norm(dim=1) / expected.mean.norm(dim=1).clamp_min(least)
            assert error.max() <= 1e-5, f"mean: {error.max():.1e} at sigma {sigma}, B {batch}"
            allowed = 1e-3 + 1e-6 * expected.log_prob.abs()
            assert ((found.log_prob - expected.log_prob).abs() <= allowed).all(), f"log_prob at {sigma}, B {batch}"


@pytest.mark.parametrize("name", PASSES)
@pytest.mark.parametrize("batch", [1, 8, 16])
def test_the_same_bits_every_time_and_in_a_graph(
    name: str, batch: int, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    denoiser = opened(stored(5000, 3072, torch.uint8, device), name, monkeypatch)
    x, sigma = torch.randn(batch, 3072, device=device), torch.full((), 20.0, device=device)
    first = denoiser(x, sigma)
    recording = torch.cuda.CUDAGraph()
    with torch.cuda.graph(recording):
        found = denoiser(x, sigma)
    for _ in range(20):
        recording.replay()
        assert torch.equal(found, first)
        assert torch.equal(denoiser(x, sigma), first)
