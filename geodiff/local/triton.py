"""LS, ELS and PSPC-Square in Triton kernels (kernels/local.py, crops.py), behind the `LocalEngine` interface."""

import contextlib
import importlib
from typing import Any

import torch
from torch import Tensor

from geodiff.backends import available, is_available, serves
from geodiff.base.arguments import check_finite
from geodiff.base.dtypes import PRECISE, STORED
from geodiff.local.engine import LocalAnswer, LocalEngine, LocalQuery
from geodiff.reference.forms import Crops, Displaced, Windows

#: The largest value of a float64 query whose squared distances float64 holds for certain; of float32 any will do.
_MOST = 1e100
_QUERIES = 256  # of a pass over the data
_NUMBERS = 2**24  # in their sums, where a single one has no more
#: Of a single query, at most: sums of every crop at every pixel of it, where details are asked for, are so many.
_MOST_NUMBERS = 2**26
_LOOKED_AT = 2**23  # values of the rows at a time


class TritonLocalEngine(LocalEngine):
    """LS, ELS and PSPC-Square over rows on a GPU, in float64 throughout: no bound is needed. Nothing is waited for.

    ELS of images that one program holds, without details.
    """

    def __init__(self, rows: Tensor) -> None:
        """Raises ValueError if rows hold NaN or Inf: a look at all of them, which waits for the device."""
        super().__init__(rows.contiguous())
        if rows.is_floating_point():
            for start in range(0, len(rows), at_once := max(1, _LOOKED_AT // max(1, rows.shape[1]))):
                check_finite(rows[start : start + at_once], "data", first_row=start)

    @staticmethod
    def missing() -> str:
        return "" if is_available("triton") else available()["triton"]

    @staticmethod
    def automatic(rows: Tensor) -> bool:
        return rows.is_cuda  # what is interpreted on a CPU is for tests

    def serves(self, asked: LocalQuery) -> bool:
        rows, x, form = self.rows, asked.query.x, asked.form
        if rows.dtype not in STORED or x.dtype not in PRECISE:
            return False
        height, width = asked.layout.shape[1:]
        if isinstance(form, Crops):
            fits = _numbers(asked) <= _MOST_NUMBERS
        elif isinstance(form, Windows):
            # A window that goes round must count no pixel twice, which the formulas would make one of an even k.
            fits = not form.circular or 2 * (form.k // 2) < min(height, width)
        elif isinstance(form, Displaced):
            fits = not asked.details and max(height, width) <= _kernels("images").SIDE
            fits = fits and (form.rule == "broken" or 2 * (form.k // 2) < min(height, width))
        else:
            return False
        here = serves("triton", rows.device.type) and x.device == rows.device
        return here and fits and (x.dtype == torch.float32 or bool((x.abs() < _MOST).all()))

    def answer(self, asked: LocalQuery) -> LocalAnswer:
        query, form, device = asked.query, asked.form, self.rows.device
        assert isinstance(form, (Windows, Displaced, Crops)), "what `serves` says"
        kernels, seen = _kernels("images"), _kernels("seen").Seen
        conditions = seen.on(device, query.prior_of_rows, query.excluded_of_rows)
        x, sigma = query.x.detach().contiguous(), query.sigma.detach().to(device, torch.float64).contiguous()
        summed = _kernels("crops").crops if isinstance(form, Crops) else _kernels("local").local
        images = kernels.Images(*asked.layout, *_windows(form, kernels.RULES))
        rows, first = query.seen(self.rows), query.rows.start
        at_a_time = max(1, min(_QUERIES, _NUMBERS // _numbers(asked)))
        found: list[Any] = []
        with torch.cuda.device(device) if rows.is_cuda else contextlib.nullcontext():
            for start in range(0, len(x), at_a_time):
                part = slice(start, start + at_a_time)
                candidates = kernels.Candidates(rows, conditions.queries(part), first, len(self.rows), asked.mirrored)
                found.append(summed(x[part], sigma[part], candidates, images, details=asked.details))
        mean, log_mass, variance, ess, nearest = (_joined(outs) for outs in zip(*found, strict=True))
        assert mean is not None, "which there always is"
        return LocalAnswer(mean, variance, ess, nearest, log_mass)


def _windows(form: Windows | Displaced | Crops, rules: dict[str, int]) -> tuple[tuple[int, int], bool, int]:
    """How far a window reaches to either side, whether it goes round, and by which rule there are others."""
    half = form.k // 2
    if isinstance(form, Windows):
        return (half, half), form.circular, 0
    if isinstance(form, Displaced):
        return (half, half), form.rule != "broken", rules[form.rule]
    return (0, form.k - 1), False, 0


def _kernels(name: str) -> Any:
    """Imported when wanted: it needs the package triton."""
    return importlib.import_module(f"geodiff.kernels.{name}")


def _numbers(asked: LocalQuery) -> int:
    """In the sums of a query, of one part of the rows."""
    channels, height, width = asked.layout.shape
    if isinstance(asked.form, Crops) and asked.details:
        k = asked.form.k
        return 2 * channels * k * k * (height - k + 1) * (width - k + 1)
    return 3 * channels * height * width


def _joined(parts: tuple[Tensor | None, ...]) -> Tensor | None:
    if len(parts) == 1 or parts[0] is None:
        return parts[0]
    return torch.cat([part for part in parts if part is not None])
