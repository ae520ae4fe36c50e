"""OptimalDenoiser as a module: inputs it takes, shapes it keeps, attributes that samplers read, and its size."""

import copy
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import geodiff
from geodiff import reference

BACKENDS = ["reference", "cpu"]


def _images(n: int = 60) -> torch.Tensor:
    return torch.randint(0, 256, (n, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("backend", BACKENDS)
def test_empty_batch(backend: str) -> None:
    found = geodiff.OptimalDenoiser(_images(), backend=backend).posterior(torch.zeros(0, 3, 8, 8), 1.0, topk=3)
    assert found.mean.shape == (0, 3, 8, 8)
    assert found.log_prob.shape == found.entropy.shape == found.ess.shape == (0,)
    assert found.indices.shape == found.weights.shape == (0, 3)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_dtype_of_the_query_is_the_dtype_of_the_answer(backend: str, dtype: torch.dtype) -> None:
    data = _images()
    x = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1)).to(dtype)
    found = geodiff.OptimalDenoiser(data, backend=backend)(x, 2.0)
    assert found.dtype == dtype
    exact = reference.denoise(x.double(), data, 2.0)
    torch.testing.assert_close(found.double(), exact, rtol=0, atol=max(1e-6, torch.finfo(dtype).eps))


def test_float64_queries_keep_their_digits() -> None:
    """Two points 1e-4 apart at sigma = 1e-3 ask for more digits of x than float32 has."""
    data = torch.tensor([[100.0], [100.0 + 2**-13]])
    x = torch.tensor([[100.0 + 2**-14 + 1e-9]], dtype=torch.float64)
    found = geodiff.OptimalDenoiser(data)(x, 1e-5)
    torch.testing.assert_close(found, reference.denoise(x, data, 1e-5), rtol=1e-12, atol=0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_non_contiguous_queries_and_data(backend: str) -> None:
    data = _images()
    x = torch.randn(8, 8, 3, 5, generator=torch.Generator().manual_seed(1)).permute(3, 2, 0, 1)
    assert not x.is_contiguous()
    exact = reference.denoise(x.double(), data, 0.7)
    for stored in (data, data.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2), data.repeat(1, 1, 1, 2)[..., ::2]):
        found = geodiff.OptimalDenoiser(
            stored if stored.stride(-1) != 2 else data.repeat_interleave(2, 3)[..., ::2], backend=backend
        )(x, 0.7)
        torch.testing.assert_close(found.double(), exact, rtol=0, atol=1e-5)


def test_a_view_of_hwc_storage_is_not_copied() -> None:
    stored = _images().permute(0, 2, 3, 1).contiguous()
    denoiser = geodiff.OptimalDenoiser(stored.permute(0, 3, 1, 2))
    assert denoiser.shape == (3, 8, 8)
    assert denoiser.data.data_ptr() == stored.data_ptr()
    assert torch.equal(denoiser.data, stored.permute(0, 3, 1, 2))


def test_a_memory_mapped_file_stays_on_disk(tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", _images().numpy())
    denoiser = geodiff.OptimalDenoiser(tmp_path / "images.npy")
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(denoiser(x, 1.0), geodiff.OptimalDenoiser(_images())(x, 1.0), rtol=0, atol=0)


def test_large_images() -> None:
    """d = 3 * 256 * 256: more dimensions than an int32 sum of products can hold."""
    g = torch.Generator().manual_seed(0)
    data = torch.randint(0, 256, (12, 3, 256, 256), dtype=torch.uint8, generator=g)
    data[5] = 255
    data[6] = 0
    denoiser = geodiff.OptimalDenoiser(data)
    for sigma in (0.01, 50.0, 1000.0):
        x = reference.model_space(data[4:7], torch.float32) + sigma * torch.randn(3, 3, 256, 256, generator=g)
        exact = reference.denoise(x.double(), data, sigma)
        error = (denoiser(x, sigma).double() - exact).flatten(1).norm(dim=1) / exact.flatten(1).norm(dim=1)
        assert error.max() <= 1e-5


def test_sigma_in_every_shape() -> None:
    denoiser = geodiff.OptimalDenoiser(_images())
    x = torch.randn(4, 3, 8, 8)
    expected = denoiser(x, 3.0)
    for sigma in (
        3,
        np.float32(3),
        torch.tensor(3.0, dtype=torch.float64),
        torch.full((4,), 3.0),
        torch.full((4, 1, 1, 1), 3.0),
        torch.full((1,), 3),
    ):
        assert torch.equal(denoiser(x, sigma), expected)


def test_what_edm_reads() -> None:
    denoiser = geodiff.OptimalDenoiser(_images(), labels=torch.arange(60) % 7)
    assert (denoiser.img_channels, denoiser.img_resolution, denoiser.label_dim) == (3, 8, 7)
    assert denoiser.sigma_min == 0
    assert denoiser.sigma_max == float("inf")
    assert denoiser.round_sigma(2.5).item() == 2.5
    with pytest.raises(AttributeError, match="img_channels"):
        _ = geodiff.OptimalDenoiser(torch.zeros(3, 4)).img_channels


def test_score_and_log_prob_belong_together() -> None:
    data = _images()
    denoiser = geodiff.OptimalDenoiser(data)
    x = torch.randn(3, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    exact = reference.posterior(x, data, 0.8)
    (gradient,) = torch.autograd.grad(exact.log_prob.sum(), x)
    torch.testing.assert_close(denoiser.score(x.detach(), 0.8), gradient, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(denoiser.log_prob(x.detach(), 0.8), exact.log_prob.detach(), rtol=1e-6, atol=1e-3)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_query_sees_its_class_only(backend: str) -> None:
    data, labels = _images(), torch.randint(0, 4, (60,), generator=torch.Generator().manual_seed(2))
    denoiser = geodiff.OptimalDenoiser(data, labels=labels, backend=backend)
    x = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    wanted = torch.tensor([3, 0, 0, 2, 1, 3])
    found = denoiser.posterior(x, 4.0, wanted, topk=3)
    for i, label in enumerate(wanted.tolist()):
        members = (labels == label).nonzero()[:, 0]
        exact = reference.posterior(x[i : i + 1].double(), data[members], 4.0, topk=3)
        torch.testing.assert_close(found.mean[i].double(), exact.mean[0], rtol=0, atol=1e-5)
        torch.testing.assert_close(found.log_prob[i].double(), exact.log_prob[0], rtol=1e-6, atol=1e-3)
        assert torch.equal(found.indices[i], members[exact.indices[0]])
    assert torch.equal(denoiser(x, 4.0, torch.nn.functional.one_hot(wanted, 4)), found.mean)


def test_copies_open_their_own_engine() -> None:
    denoiser = geodiff.OptimalDenoiser(_images(), labels=torch.arange(60) % 3)
    x = torch.randn(2, 3, 8, 8)
    for twin in (copy.deepcopy(denoiser), pickle.loads(pickle.dumps(denoiser)), denoiser.half(), denoiser.to("cpu")):
        assert torch.equal(twin(x, 1.0), denoiser(x, 1.0))
        assert twin.data.dtype == torch.uint8


def test_sampling_ends_on_data_points() -> None:
    data = _images()
    noise = 80 * torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(4))
    end = geodiff.sample(geodiff.OptimalDenoiser(data), noise, geodiff.schedules.karras(18)).states[-1]
    distance = torch.cdist(end.double().flatten(1), reference.model_space(data, torch.float64).flatten(1)).amin(1)
    assert distance.max() < 1e-3


_MEASURE = """
import re, torch, geodiff
torch.set_num_threads(2)
data = torch.randint(0, 256, (50000, 3072), dtype=torch.uint8)
denoiser = geodiff.OptimalDenoiser(data)
x = 40 * torch.randn(64, 3072)
def status(key):
    return int(re.search(key + r":\\s+(\\d+)", open("/proc/self/status").read()).group(1))
for sigma in (40.0, 5.0, 0.5):
    open("/proc/self/clear_refs", "w").write("5")
    before = status("VmRSS")
    denoiser(x / 40 * sigma + geodiff.reference.model_space(data[:64], torch.float32), sigma)
    print((status("VmHWM") - before) / 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of resident memory from /proc")
def test_memory_of_a_call() -> None:
    """Contract 2: N = 50,000, d = 3072, B = 64 grows the process by at most 64 MiB."""
    done = subprocess.run([sys.executable, "-c", _MEASURE], capture_output=True, text=True, check=False)
    if "clear_refs" in done.stderr:
        pytest.skip("the kernel does not let a process reset its peak memory")
    growth = [float(line) for line in done.stdout.split()]
    assert len(growth) == 3, done.stderr
    assert max(growth) <= 64, growth
