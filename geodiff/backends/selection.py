"""The backends by name: which are here, which one serves a data set (geodiff.backends.table), and opening it."""

import importlib
import importlib.metadata
import importlib.util
import os

import torch
from torch import Tensor

from geodiff.backends import cpu, cuda
from geodiff.backends.change_detection import Change, Watch
from geodiff.backends.cpu import CpuEngine
from geodiff.backends.cuda import CudaEngine
from geodiff.backends.engine import Engine
from geodiff.backends.mapped_file import MappedFile
from geodiff.backends.plain import PlainEngine
from geodiff.backends.table import TABLE, Rule
from geodiff.base.errors import BackendUnavailable
from geodiff.base.version import VERSION

__all__ = [
    "NAMES",
    "OLDEST_TRITON",
    "Engine",
    "Engines",
    "available",
    "choose",
    "explain",
    "is_available",
    "open_engine",
]

NAMES = ("reference", "cpu", "triton", "cuda")
#: The oldest whose language has what the kernels use: they do not compile with 3.2, which PyTorch 2.6 brings, or 3.3.
OLDEST_TRITON = (3, 4)


def available() -> dict[str, str]:
    """name -> version where the backend can be used, else the reason why not (see `is_available`)."""
    return {name: _reason_missing(name) or _version(name) for name in NAMES}


def is_available(name: str) -> bool:
    """Whether `backend=name` works here. Raises ValueError for an unknown name."""
    return not _reason_missing(_known(name))


def choose(
    backend: str,
    device: torch.device,
    *,
    dtype: torch.dtype | None = None,
    d: int | None = None,
    batch: int | None = None,
) -> str:
    """The backend for data [N, d] of `dtype` on `device`: the one asked for, or for "auto" the first line of TABLE.

    batch: queries of the call; None takes a line that serves any number.
    Raises ValueError for an unknown name or one that cannot serve the device, BackendUnavailable if it is not here.
    """
    if backend == "auto":
        for rule in TABLE:
            if not (rule.fits(device.type, dtype, d, batch) and _usable(rule)):
                continue
            if _device_serves(rule, device, dtype, d, batch):
                return rule.backend
        return "reference"
    reason = _reason_missing(_known(backend, "auto"))
    if reason:
        raise BackendUnavailable(f"backend: {backend!r} is not available: {reason}; available {_available()}")
    if not serves(backend, device.type):
        raise ValueError(
            f"backend: expected one that serves device {device}, found {backend!r}; allowed 'reference', 'auto'"
        )
    return backend


def _device_serves(
    rule: Rule, device: torch.device, dtype: torch.dtype | None, d: int | None, batch: int | None
) -> bool:
    """What of a line's conditions the device itself decides; what is not known does not fulfil them."""
    if not (rule.dense or rule.one_pass):
        return True
    if dtype is None or d is None:
        return False
    if rule.dense:
        return cuda.dense(device, dtype, d)
    return batch is not None and cuda.streams(device, dtype, d, batch)


def explain() -> list[dict[str, object]]:
    """TABLE as it stands on this machine: for every line its backend, device, limits, reason, and whether it is usable.

    `measured` says on what machine a line's thresholds were measured, or that they were not.
    """
    return [
        {
            "backend": rule.backend,
            "device": rule.device,
            "for": rule.limits(),
            "why": rule.why,
            "measured": rule.measured,
            "usable": _usable(rule),
        }
        for rule in TABLE
    ]


def serves(name: str, device: str) -> bool:
    """Whether the backend takes rows on such a device ("cpu", "cuda"), if it is here."""
    if name == "triton" and _triton_interprets():
        return device == "cpu"
    return any(rule.backend == name and rule.device == device for rule in TABLE) or name == "reference"


def open_engine(name: str, rows: Tensor, file: MappedFile | None = None) -> Engine:
    """The engine of backend `name` (from `choose`) over rows [N, d]. Raises ValueError if rows hold NaN or Inf.

    file: that rows are mapped from, if they are
    """
    if name == "cuda":
        return CudaEngine(rows)
    if name == "triton":  # imported here: it needs the package triton
        engine: Engine = importlib.import_module(_TRITON).TritonEngine(rows)
        return engine
    return CpuEngine(rows, file) if name == "cpu" else PlainEngine(rows)


class Engines:
    """The engines over one set of rows: the one asked for, or for "auto" the one that `choose` names for each call.

    All share the rows, so they are stored once; an engine adds what it found out about them, a few numbers per row.
    """

    def __init__(self, backend: str, rows: Tensor) -> None:
        """rows [N, d] as stored. Raises as `choose` does, for a number of queries that is not known."""
        self._asked, self._rows = backend, rows
        self._names: dict[int | None, str] = {}
        self._opened: dict[str, Engine] = {}
        self._watch = Watch(rows)
        #: how often the values of the rows have changed since this was made
        self.changes = 0
        self.name()

    def name(self, batch: int | None = None) -> str:
        """The backend for a call of `batch` queries; None: for any number of them."""
        if batch not in self._names:
            rows = self._rows
            self._names[batch] = choose(self._asked, rows.device, dtype=rows.dtype, d=rows.shape[1], batch=batch)
        return self._names[batch]

    def serving(self, batch: int | None = None) -> Engine:
        """The engine of that backend. Opening it, once, takes a pass over the data and waits for the device.

        Raises ValueError if rows hold NaN or Inf, and as `check` does.
        """
        self.check()
        name = self.name(batch)
        if name not in self._opened:
            self._opened[name] = open_engine(name, self._rows, self._watch.file)
        return self._opened[name]

    def check(self) -> None:
        """Notices that the rows were moved or written to: engines are then opened anew.

        Raises ValueError for changes that torch does not know of, DataError for a mapped file that has changed.
        """
        change = self._watch.look()
        if change is not Change.NONE:
            self._opened = {}
            self.changes += change is Change.WRITTEN


def _known(name: str, *more: str) -> str:
    if name not in (*NAMES, *more):
        raise ValueError(f"backend: expected a known name, found {name!r}; allowed {[*more, *NAMES]}")
    return name


def _available() -> list[str]:
    return [name for name in NAMES if not _reason_missing(name)]


def _usable(rule: Rule) -> bool:
    return not _reason_missing(rule.backend)


def _reason_missing(name: str) -> str:
    if name == "reference":
        return ""
    if name == "cpu":
        return cpu.MISSING
    if name == "cuda":
        return cuda.reason_missing()
    if importlib.util.find_spec("triton") is None:
        return "the package triton is not installed"
    if importlib.util.find_spec(_TRITON) is None:
        return "this version has no Triton kernels"
    version = importlib.metadata.version("triton")
    if tuple(map(int, version.split(".")[:2])) < OLDEST_TRITON:
        oldest = ".".join(map(str, OLDEST_TRITON))
        return f"triton {version} is too old: its language lacks what the kernels use, allowed {oldest} or later"
    return "" if torch.cuda.is_available() or _triton_interprets() else "no CUDA device"


def _triton_interprets() -> bool:
    """Whether Triton's kernels run on the CPU, in its interpreter: for tests, and very slow."""
    return os.environ.get("TRITON_INTERPRET", "") == "1"


def _version(name: str) -> str:
    if name == "triton":
        return f"triton {importlib.metadata.version('triton')}"
    if name == "cuda":
        return f"{VERSION} (CUDA {cuda.runtime()})"
    return f"torch {torch.__version__}" if name == "reference" else f"{VERSION} ({cpu.isa()})"


_TRITON = "geodiff.backends.triton"
