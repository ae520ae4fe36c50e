"""The compiled CPU core's local denoisers (csrc/cpu/passes/local.h, subset.h), behind the `LocalEngine` interface."""

import math
from dataclasses import replace

import torch
from torch import Tensor

from geodiff.backends.cpu import MISSING, CpuEngine, Subsets, Window
from geodiff.backends.query import FLOAT64
from geodiff.base.dtypes import STORED
from geodiff.local.engine import Layout, LocalAnswer, LocalEngine, LocalQuery
from geodiff.local.subset_sums import SubsetSums, by_differences, one_by_one
from geodiff.reference.forms import Crops, Pairs, Windows

#: The largest value of a query whose squared distances float64 holds for certain.
_MOST = 1e100
#: Less than this is left to the formulas where answers are in float64 without a look at what that rounds.
_TOL = 1e-8


class CpuLocalEngine(LocalEngine):
    """LS, PSPC-Square and PCA locality over rows in memory.

    The first two in float32 where that keeps `tol`, with exact logits, or in float64, as PCA locality is.
    """

    def __init__(self, rows: Tensor) -> None:
        super().__init__(rows)
        self._core: CpuEngine | None = None
        self._sums: tuple[Pairs, Layout, SubsetSums] | None = None  # of the last mask

    @staticmethod
    def missing() -> str:
        return MISSING

    @staticmethod
    def automatic(rows: Tensor) -> bool:
        return rows.device.type == "cpu"

    def serves(self, asked: LocalQuery) -> bool:
        rows, query, form = self.rows, asked.query, asked.form
        known = isinstance(form, Windows) or (isinstance(form, Crops) and not (asked.details or asked.mirrored))
        if isinstance(form, Pairs):
            known = form.matrix.dtype == torch.bool and form.temperature > 0 and query.tol >= _TOL
            known = known and not asked.details
        stored = rows.device.type == "cpu" and rows.dtype in STORED
        return known and stored and bool((query.x.abs() < _MOST).all())

    def answer(self, asked: LocalQuery) -> LocalAnswer:
        query, form = asked.query, asked.form
        if self._core is None:  # which looks at all rows
            self._core = CpuEngine(self.rows.contiguous())
        if isinstance(form, Pairs):
            return LocalAnswer(self._of_pairs(self._core, asked, form))
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

    def _of_pairs(self, core: CpuEngine, asked: LocalQuery, form: Pairs) -> Tensor:
        numbers = torch.arange(self.rows.shape[1], device="cpu").reshape(1, *asked.layout.shape)
        order = asked.layout.rows(numbers)[0]  # which number of an image is where in a row
        if self._sums is None or self._sums[0] is not form or self._sums[1] != asked.layout:
            self._sums = form, asked.layout, by_differences(_in_rows(form, order))
        mirror = None
        if asked.mirrored:
            mirror = torch.empty_like(order)
            mirror[order] = torch.arange(len(order), device="cpu")  # where in a row a number is
            mirror = mirror.int()[numbers.flip(-1).flatten()[order]]
        mean, held = core.subset(asked.query, _asked(self._sums[2], form, mirror))
        again = (~held).nonzero()[:, 0]
        if len(again):
            direct = _asked(one_by_one(_in_rows(form, order)), form, mirror)
            mean[again] = core.subset(asked.query.picked(again), direct)[0]
        return mean


def _in_rows(form: Pairs, order: Tensor) -> Tensor:
    """The matrix of numbers in the order that rows have them in."""
    return form.matrix.cpu()[order][:, order]


def _asked(sums: SubsetSums, form: Pairs, mirror: Tensor | None) -> Subsets:
    return Subsets(sums.steps, sums.terms, sums.places, sums.largest, sums.additions, form.temperature, mirror)
