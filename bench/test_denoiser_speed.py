"""pytest-benchmark suite of the CPU kernels: `pytest bench`, over made-up bytes.

GEODIFF_CIFAR10 names a cifar10_train.npy to use instead. For ratios to other software use `geodiff bench`, which times
both sides interleaved; this suite tracks our own times from commit to commit (`--benchmark-save`).
"""

import os
from typing import Any

import numpy as np
import pytest
import torch

import geodiff
from geodiff import ops, reference

N = int(os.environ.get("GEODIFF_BENCH_N", "50000"))


@pytest.fixture(scope="module")
def data() -> torch.Tensor:
    path = os.environ.get("GEODIFF_CIFAR10")
    if path:
        return torch.from_numpy(np.load(path))[:N]
    return torch.randint(0, 256, (N, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def _stored(data: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return data if dtype == torch.uint8 else reference.model_space(data, torch.float32).to(dtype)


def _queries(data: torch.Tensor, batch: int, sigma: float) -> torch.Tensor:
    g = torch.Generator().manual_seed(1)
    clean = reference.model_space(data[torch.randint(len(data), (batch,), generator=g)], torch.float32)
    return clean + sigma * torch.randn(clean.shape, generator=g)


@pytest.mark.parametrize("sigma", [40.0, 5.0, 1.0])
@pytest.mark.parametrize("batch", [1, 4, 16, 64, 256])
def test_uint8(benchmark: Any, data: torch.Tensor, batch: int, sigma: float) -> None:
    denoiser, x = geodiff.OptimalDenoiser(data), _queries(data, batch, sigma)
    benchmark(denoiser, x, sigma)
    benchmark.extra_info["GMAC/s"] = 2 * batch * data.numel() / benchmark.stats["median"] / 1e9


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("batch", [1, 16, 64])
def test_float_storage(benchmark: Any, data: torch.Tensor, batch: int, dtype: torch.dtype) -> None:
    denoiser, x = geodiff.OptimalDenoiser(_stored(data, dtype)), _queries(data, batch, 40.0)
    benchmark(denoiser, x, 40.0)


@pytest.mark.parametrize("batch", [1, 16])
def test_inner_products(benchmark: Any, data: torch.Tensor, batch: int) -> None:
    x = _queries(data, batch, 40.0)
    ops.inner_products(x, data)  # looks through the data once
    benchmark(ops.inner_products, x, data)


def test_heun_trajectory(benchmark: Any, data: torch.Tensor) -> None:
    """18 points, 35 evaluations, 64 samples."""
    denoiser, sigmas = geodiff.OptimalDenoiser(data), geodiff.schedules.edm()
    noise = sigmas[0].item() * torch.randn(64, *data.shape[1:], generator=torch.Generator().manual_seed(2))
    benchmark.pedantic(geodiff.sample, args=(denoiser, noise, sigmas), rounds=1, warmup_rounds=0)
