"""The compiled CPU core's local denoisers (csrc/cpu/passes/local.h), behind the `LocalEngine` interface."""

import math
from dataclasses import replace

from torch import Tensor

from geodiff.backends.cpu import MISSING, CpuEngine, Window
from geodiff.backends.query import FLOAT64
from geodiff.base.dtypes import STORED
from geodiff.local.engine import LocalAnswer, LocalEngine, LocalQuery
from geodiff.reference.forms import Crops, Windows

#: The largest value of a query whose squared distances float64 holds for certain.
_MOST = 1e100


class CpuLocalEngine(LocalEngine):
    """LS and PSPC-Square over rows in memory: in float32 where that keeps `tol`, with exact logits, or in float64."""

    def __init__(self, rows: Tensor) -> None:
        super().__init__(rows)
        self._core: CpuEngine | None = None

    @staticmethod
    def missing() -> str:
        return MISSING

    def serves(self, asked: LocalQuery) -> bool:
        rows, query = self.rows, asked.query
        known = isinstance(asked.form, Windows) or (
            isinstance(asked.form, Crops) and not (asked.details or asked.mirrored)
        )
        stored = rows.device.type == "cpu" and rows.dtype in STORED
        return known and stored and bool((query.x.abs() < _MOST).all())

    def answer(self, asked: LocalQuery) -> LocalAnswer:
        query, form = asked.query, asked.form
        if self._core is None:  # which looks at all rows
            self._core = CpuEngine(self.rows.contiguous())
        if isinstance(form, Crops):
            return LocalAnswer(self._core.local(query, asked.layout, Window(form.k, crops=True), details=False).mean)
        assert isinstance(form, Windows), "what `serves` says"
        if asked.details:  # second moments less squared means: float32 would leave small variances few digits
            query = replace(query, tol=FLOAT64)
        window = Window(form.k, form.circular, asked.mirrored)
        found = self._core.local(query, asked.layout, window, details=asked.details)
        mass = query.log_mass
        log_mass = found.log_sum - (mass[:, None, None] if isinstance(mass, Tensor) else mass)
        if asked.mirrored:
            log_mass -= math.log(2)
        if not asked.details:
            return LocalAnswer(found.mean, log_mass=log_mass)
        return LocalAnswer(found.mean, found.variance, found.ess, found.nearest, log_mass)
