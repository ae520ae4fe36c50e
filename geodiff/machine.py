"""What a measurement was made on: every number that is reported carries this with it."""

import os
import platform
from pathlib import Path

import torch

from geodiff import backends
from geodiff.backends import cpu


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


def cpu_name() -> str:
    """The processor's own name where the system tells it, otherwise the architecture."""
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text(errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def _gpu(index: int) -> str:
    properties = torch.cuda.get_device_properties(index)
    return f"{properties.name}, sm_{properties.major}{properties.minor}, {properties.total_memory / 2**30:.0f} GiB"
