"""The machine a measurement is made on, which every number that is reported carries with it, and its threads."""

import datetime
import os
import platform
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from geodiff import backends
from geodiff.backends import cpu
from geodiff.base.version import VERSION


def describe() -> dict[str, object]:
    """cpu (name), cores, threads (as PyTorch and the kernels use them), isa and isas of the CPU kernels, gpus."""
    built = backends.is_available("cpu")
    return {
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "isa": cpu.isa() if built else None,
        "isas": cpu.isas() if built else [],
        "gpus": [_gpu(index) for index in range(torch.cuda.device_count())],
    }


def provenance() -> dict[str, object]:
    """What a result that is kept has to say of itself: date, commit, versions and machine."""
    return {
        "date": datetime.date.today().isoformat(),
        "commit": commit(),
        "versions": {
            "geodiff": VERSION,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
        },
        "machine": describe(),
    }


def commit() -> str:
    """The commit of the source tree that this package runs from, with "+" where files differ; "" outside of one."""
    here = Path(__file__).parent
    try:
        found = subprocess.run(
            ["git", "-C", str(here), "describe", "--always", "--dirty=+", "--exclude=*", "--abbrev=12"],
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return found.stdout.strip() if found.returncode == 0 else ""


def cpu_name() -> str:
    """The processor's own name where the system tells it, otherwise the architecture."""
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text(errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


@contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch on one thread within the block: for many short operations, at each of which several threads would meet.

    PyTorch's threads spin while they wait; where other programs want the cores too, that takes ten times as long.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _gpu(index: int) -> str:
    properties = torch.cuda.get_device_properties(index)
    return f"{properties.name}, sm_{properties.major}{properties.minor}, {properties.total_memory / 2**30:.0f} GiB"
