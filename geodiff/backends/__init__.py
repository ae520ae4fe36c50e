"""The backends, and the one table that says which of them serves a data set."""

import importlib.metadata
import importlib.util
import os

import torch
from torch import Tensor

from geodiff.backends import cpu
from geodiff.backends.cpu import CpuEngine
from geodiff.backends.engine import Engine
from geodiff.backends.torch_reference import ReferenceEngine
from geodiff.errors import BackendUnavailable

__all__ = ["NAMES", "Engine", "available", "choose", "is_available", "open_engine"]

NAMES = ("reference", "cpu", "triton", "cuda")


def available() -> dict[str, str]:
    """name -> version where the backend can be used, else the reason why not (see `is_available`)."""
    return {name: _reason_missing(name) or _version(name) for name in NAMES}


def is_available(name: str) -> bool:
    """Whether `backend=name` works here. Raises ValueError for an unknown name."""
    return not _reason_missing(_known(name))


def choose(backend: str, device: torch.device) -> str:
    """The backend for data on `device`: the one asked for, or for "auto" the fastest that serves it.

    Raises ValueError for an unknown name or one that cannot serve the device, BackendUnavailable if it is not here.
    """
    if backend == "auto":
        return "cpu" if device.type == "cpu" and is_available("cpu") else "reference"
    reason = _reason_missing(_known(backend, "auto"))
    if reason:
        raise BackendUnavailable(f"backend: {backend!r} is not available: {reason}; available {_usable()}")
    if backend == "cpu" and device.type != "cpu":
        raise ValueError(f"backend: expected one that serves device {device}, found 'cpu'; allowed 'reference', 'auto'")
    return backend


def open_engine(name: str, rows: Tensor) -> Engine:
    """The engine of backend `name` (from `choose`) over rows [N, d]. Raises ValueError if rows hold NaN or Inf."""
    if name == "triton":
        from geodiff.backends.triton import TritonEngine  # here, since it needs the package triton

        return TritonEngine(rows)
    return CpuEngine(rows) if name == "cpu" else ReferenceEngine(rows)


def _known(name: str, *more: str) -> str:
    if name not in (*NAMES, *more):
        raise ValueError(f"backend: expected a known name, found {name!r}; allowed {[*more, *NAMES]}")
    return name


def _usable() -> list[str]:
    return [name for name in NAMES if not _reason_missing(name)]


def _reason_missing(name: str) -> str:
    if name == "reference":
        return ""
    if name == "cpu":
        return cpu.MISSING
    if name == "triton" and importlib.util.find_spec("triton") is None:
        return "the package triton is not installed"
    if not torch.cuda.is_available() and not (name == "triton" and _triton_interprets()):
        return "no CUDA device"
    return "" if name == "triton" else "this version has no CUDA kernels yet"


def _triton_interprets() -> bool:
    """Whether Triton's kernels run on the CPU, in its interpreter: for tests, and very slow."""
    return os.environ.get("TRITON_INTERPRET", "") == "1"


def _version(name: str) -> str:
    from geodiff import __version__

    if name == "triton":
        return f"triton {importlib.metadata.version('triton')}"
    return f"torch {torch.__version__}" if name == "reference" else f"{__version__} ({cpu.isa()})"
