"""Contract 1 on a GPU, for every GPU backend that can be used, over every dtype and shapes that divide no tile."""

import math

import pytest
import torch
from torch import Tensor

from geodiff import OptimalDenoiser, reference, sample
from geodiff.denoiser.graph_recording import unchecked
from geodiff.schedules import karras
from geodiff.solvers import graph
from tests.gpu.needed import need_backend

SIGMAS = (1e-3, 0.02, 0.5, 2.0, 10.0, 80.0, 1000.0)
SHAPES = ((1, 1), (31, 33), (257, 784), (1000, 3072), (130, 12_288), (40, 21_001))
DTYPES = (torch.uint8, torch.float16, torch.bfloat16, torch.float32)
NAMES = ("cuda", "triton")


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    need_backend(found)
    return found


def stored(n: int, d: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    generator = torch.Generator().manual_seed(n + d)
    pixels = torch.randint(0, 256, (n, d), dtype=torch.uint8, generator=generator)
    if n > 20:
        pixels[n // 2] = pixels[3]
        pixels[n // 3] = pixels[5]
        pixels[n // 3, 0] ^= 1
    data = pixels if dtype == torch.uint8 else reference.model_space(pixels, torch.float64).to(dtype)
    return data.to(device)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("n", "d"), SHAPES)
def test_contract(name: str, dtype: torch.dtype, n: int, d: int, device: torch.device) -> None:
    data = stored(n, d, dtype, device)
    denoiser = OptimalDenoiser(data, backend=name)
    points = reference.model_space(data, torch.float64)
    least = 0.01 * points.norm(dim=1).max()
    for batch in (1, 4, 17, 65):
        for sigma in SIGMAS:
            x = (points[torch.arange(batch) % n] + sigma * torch.randn(batch, d, device=device)).float()
            found = denoiser.posterior(x.double(), sigma)
            expected = reference.posterior(x.double(), data, sigma)
            error = (found.mean - expected.mean).norm(dim=1) / expected.mean.norm(dim=1).clamp_min(least)
            assert error.max() <= 1e-5, f"mean: {error.max():.1e} at sigma {sigma}, B {batch}"
            allowed = 1e-3 + 1e-6 * expected.log_prob.abs()
            assert ((found.log_prob - expected.log_prob).abs() <= allowed).all(), f"log_prob at {sigma}, B {batch}"


def test_auto_serves_few_queries_and_many(device: torch.device) -> None:
    data = stored(257, 784, torch.uint8, device)
    denoiser = OptimalDenoiser(data)
    points = reference.model_space(data, torch.float64)
    least = 0.01 * points.norm(dim=1).max()
    for batch in (1, 16, 17, 65):
        x = points[torch.arange(batch) % 257] + 2.0 * torch.randn(batch, 784, device=device, dtype=torch.float64)
        expected = reference.posterior(x, data, 2.0).mean
        error = (denoiser(x, 2.0) - expected).norm(dim=1) / expected.norm(dim=1).clamp_min(least)
        assert error.max() <= 1e-5, f"B {batch}, by {denoiser._points.engines.name(batch)}"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_step_taken_with_the_evaluation(name: str, dtype: torch.dtype, device: torch.device) -> None:
    data = stored(257, 784, torch.uint8, device)
    denoiser = OptimalDenoiser(data, backend=name)
    x = torch.randn(17, 784, device=device, dtype=dtype)
    for count in range(5):
        terms = [(0.5 - k, torch.randn_like(x)) for k in range(count)]
        expected = -0.7 * reference.posterior(x.double(), data, 2.0).mean
        expected += sum(factor * values.double() for factor, values in terms)
        for out in (torch.full_like(x, math.nan), *(values for _, values in terms[-1:])):
            denoiser.combine(x, 2.0, -0.7, terms, out=out)
            error = (out - expected).norm(dim=1) / expected.norm(dim=1)
            assert error.max() <= 2e-5, f"{error.max():.1e} with {count} terms"


def test_a_mask_for_every_query(name: str, device: torch.device) -> None:
    data = stored(500, 97, torch.uint8, device)
    denoiser, plain = OptimalDenoiser(data, backend=name), OptimalDenoiser(data, backend="reference")
    mask = torch.rand(20, 500, device=device) < 0.5
    mask[3] = False
    mask[3, 499] = True
    x = reference.model_space(data[:20], torch.float64) + torch.randn(20, 97, device=device, dtype=torch.float64)
    found, expected = (one.posterior(x, 1.0, topk=2, mask=mask) for one in (denoiser, plain))
    torch.testing.assert_close(found.mean, expected.mean, rtol=1e-5, atol=1e-5)
    assert found.indices.equal(expected.indices)


def test_queries_elsewhere_are_refused(device: torch.device) -> None:
    denoiser = OptimalDenoiser(stored(31, 33, torch.uint8, device))
    with pytest.raises(ValueError, match=r"^x: expected on the device of the data, cuda:"):
        denoiser(torch.randn(2, 33), 1.0)


def test_the_same_bits_every_time(name: str, device: torch.device) -> None:
    data = stored(1000, 3072, torch.uint8, device)
    denoiser = OptimalDenoiser(data, backend=name)
    x = torch.randn(16, 3072, device=device)
    first = denoiser(x, 1.0)
    assert all(torch.equal(denoiser(x, 1.0), first) for _ in range(5))


@pytest.mark.parametrize("solver", ["euler", "heun"])
def test_a_recorded_trajectory_is_the_same(solver: str, device: torch.device) -> None:
    need_backend("cuda")
    denoiser = OptimalDenoiser(stored(500, 784, torch.uint8, device), backend="cuda")
    sigmas = karras(6)
    for seed in range(3):
        generator = torch.Generator(device).manual_seed(seed)
        noise = 80 * torch.randn(4, 784, device=device, generator=generator)
        expected = sample(denoiser, noise, sigmas, solver, callback=lambda *_: None)
        found = sample(denoiser, noise, sigmas, solver)
        assert torch.equal(found.states, expected.states), f"call {seed}"
    assert all(graph._recordings[denoiser].latest.values()), "nothing was recorded"


def test_others_may_capture_a_call(device: torch.device) -> None:
    need_backend("cuda")
    denoiser = OptimalDenoiser(stored(500, 784, torch.uint8, device), backend="cuda")
    x, sigma = torch.randn(4, 784, device=device), torch.ones((), device=device)
    expected = denoiser(x, sigma)
    recording = torch.cuda.CUDAGraph()
    with torch.cuda.graph(recording):
        found = denoiser(x, sigma)
    recording.replay()
    assert torch.equal(found, expected)


@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
def test_a_call_that_waits_for_nothing(device: torch.device) -> None:
    need_backend("cuda")
    denoiser = OptimalDenoiser(stored(500, 784, torch.uint8, device), backend="cuda")
    x, levels = torch.randn(4, 784, device=device), torch.ones(4, dtype=torch.float64, device=device)
    unchecked(denoiser, x, levels, 1.0, (), torch.empty_like(x))
    mode = torch.cuda.get_sync_debug_mode()
    try:
        torch.cuda.set_sync_debug_mode("error")
        unchecked(denoiser, x, levels, 1.0, (), torch.empty_like(x))
    finally:
        torch.cuda.set_sync_debug_mode(mode)


def test_memory_is_the_data_and_a_fixed_budget(name: str, device: torch.device) -> None:
    n, d, batch = 20_000, 3072, 64
    denoiser = OptimalDenoiser(stored(n, d, torch.uint8, device), backend=name)
    x = torch.randn(batch, d, device=device)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    denoiser(x, 3.0)
    assert torch.cuda.max_memory_allocated() - before <= 2**30
    assert math.prod((batch, n, d)) > 2**30  # what must never be held
