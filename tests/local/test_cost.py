"""What local denoisers take: memory of a call, and the time of a trajectory."""

import subprocess
import sys
import time

import pytest
import torch

import geodiff
from geodiff import LocalDenoiser
from geodiff.backends.cpu import isas
from geodiff.local.cpu import CpuLocalEngine

_MEASURE = """
import re, sys, torch, geodiff
kind, n, batch, threads, side = sys.argv[1], *map(int, sys.argv[2:])
torch.set_num_threads(threads)
data = torch.randint(0, 256, (n, 3, side, side), dtype=torch.uint8)
denoiser = geodiff.LocalDenoiser(data, kind=kind, patch=3)
x = geodiff.reference.model_space(data[:batch], torch.float32)
denoiser(x[:1], 1.0)
def status(key):
    return int(re.search(key + r":\\s+(\\d+)", open("/proc/self/status").read()).group(1))
for sigma in (40.0, 0.5):
    open("/proc/self/clear_refs", "w").write("5")
    before = status("VmRSS")
    denoiser(x + sigma * torch.randn_like(x), sigma)
    print((status("VmHWM") - before) / 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of resident memory from /proc")
@pytest.mark.skipif(bool(CpuLocalEngine.missing()), reason=CpuLocalEngine.missing())
@pytest.mark.parametrize(
    "asked", ["ls 2000 64 2 32", "pspc_square 2000 64 2 32", "els_broken 8 2 1 32", "els_broken 1 1 1 64"]
)
def test_memory_of_a_call(asked: str) -> None:
    """At most 64 MiB, however many images and queries, and however large; no logits are kept between passes either."""
    given = [sys.executable, "-c", _MEASURE, *asked.split()]
    done = subprocess.run(given, capture_output=True, text=True, check=False)
    if "clear_refs" in done.stderr:
        pytest.skip("the kernel does not let a process reset its peak memory")
    growth = [float(line) for line in done.stdout.split()]
    assert len(growth) == 2, done.stderr
    assert max(growth) <= 64, growth


@pytest.mark.skipif(len(isas()) < 2, reason="of an instruction set with registers of several numbers")
def test_a_trajectory_over_5000_digits_takes_two_seconds() -> None:
    """LS, k = 7, 8 samples, 10 levels: of the processor, two cores, for machines that others use too."""
    data = geodiff.data.load("mnist5k").data
    denoiser = LocalDenoiser(data, patch=7)
    noise = 80 * torch.randn(8, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    started = time.process_time()
    trajectory = geodiff.sample(denoiser, noise, geodiff.schedules.karras(10), "euler")
    assert len(trajectory.sigmas) == 11
    assert time.process_time() - started <= 2 * 2.0
