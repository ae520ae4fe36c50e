"""Which engine serves a call: the one asked for, or of those that are here the first that can."""

from torch import Tensor

from geodiff.backends import NAMES, choose
from geodiff.base.errors import BackendUnavailable
from geodiff.local.cpu import CpuLocalEngine
from geodiff.local.engine import LocalAnswer, LocalEngine, LocalQuery
from geodiff.local.plain import PlainLocalEngine
from geodiff.local.products import PatchProducts
from geodiff.local.triton import TritonLocalEngine

#: The backends that know local denoisers, the fastest first.
ENGINES: dict[str, type[LocalEngine]] = {
    "cpu": CpuLocalEngine,
    "triton": TritonLocalEngine,
    "products": PatchProducts,
    "reference": PlainLocalEngine,
}


def available() -> list[str]:
    """Names of the engines that can be used here, the fastest first."""
    return [name for name, engine in ENGINES.items() if not engine.missing()]


class LocalEngines:
    """The engines over one set of rows [N, d], opened when first wanted.

    backend "auto", or a name; raises ValueError for an unknown one, BackendUnavailable for one that is not here.
    """

    def __init__(self, backend: str, rows: Tensor) -> None:
        if backend != "auto":
            if backend in NAMES or backend not in ENGINES:
                choose(backend, rows.device)
            reason = ENGINES[backend].missing() if backend in ENGINES else "it has no local denoisers"
            if reason:
                raise BackendUnavailable(f"backend: {backend!r} is not available: {reason}; available {available()}")
        self._rows = rows
        self.names = [backend]
        if backend == "auto":
            self.names = [name for name in available() if ENGINES[name].automatic(rows)]
        self._opened: dict[str, LocalEngine] = {}

    def answer(self, asked: LocalQuery) -> LocalAnswer:
        """The answer of the first engine that serves this; BackendUnavailable where the one asked for does not."""
        for name in self.names:
            if name not in self._opened:
                self._opened[name] = ENGINES[name](self._rows)
            if self._opened[name].serves(asked):
                return self._opened[name].answer(asked)
        found = f"{asked.form}, tol {asked.query.tol:g}, x of {asked.query.x.dtype}"
        raise BackendUnavailable(
            f"backend: {self.names[0]!r} does not serve {found}{', details' if asked.details else ''} on "
            f"{self._rows.device}; allowed 'auto', 'reference'"
        )
