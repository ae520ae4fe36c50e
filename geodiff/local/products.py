"""ELS by matrix products of patches, in float64: exact, and candidates that are certainly negligible are not weighed.

For pixels whose windows have one shape, all logits are one product, <a, b> / sigma^2 - |b|^2 / 2 sigma^2 + log pi, of
patches a of the query and b of the data, both less a centre near the a, where products lose no digits: the query's own,
since one of all queries moves with any that lies far away. Candidates more than `cut` = log(candidates / EPS) below the
best so far are left out: those of images whose best is, or in the CPU core (csrc/cpu/passes/given.h) a register at a
time. All of them together hold at most EPS of the weight, since the best only rises.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from geodiff.backends.cpu import MISSING, add_given
from geodiff.backends.query import Query
from geodiff.base.dtypes import STORED
from geodiff.local.engine import LocalAnswer, LocalEngine, LocalQuery, Work
from geodiff.reference.forms import Displaced
from geodiff.reference.formula import model_space

#: Share of the weight that candidates which are not weighed may have together.
EPS = 1e-12
#: Less than this is left to the formulas: products of float64 lose digits where distances are large beside sigma.
_TOL = 1e-8
_LOGITS = 2**20  # at a time
#: The centre of a patch may be off by half of so many sigma, for which float64 rounds logits by about 2e-9.
_OFF = 2**13


class PatchProducts(LocalEngine):
    """ELS, without details."""

    @staticmethod
    def missing() -> str:
        return ""

    def serves(self, asked: LocalQuery) -> bool:
        shaped = isinstance(asked.form, Displaced) and self.rows.dtype in STORED
        return shaped and not asked.details and asked.query.tol >= _TOL

    def answer(self, asked: LocalQuery) -> LocalAnswer:
        form = asked.form
        assert isinstance(form, Displaced), "what `serves` says"
        query = asked.query.with_exclude_as_prior(len(self.rows))
        images = asked.layout.images(query.seen(self.rows))
        x = asked.layout.images(query.x.double())
        mean, work = torch.empty_like(x), Work(0, 0)
        centres, of_query = _centres(x, query.sigma.to(x), form.k).unique(dim=0, return_inverse=True)
        for number, centre in enumerate(centres):
            which = (of_query == number).nonzero()[:, 0]
            alike = query if len(centres) == 1 else query.picked(which)
            for windows in _windows(form, *x.shape[-2:]):
                sums = _Sums(x[which], alike, windows, centre)
                found, done = sums.over(images, mirrored=asked.mirrored)
                _check_weighed(sums.mass)
                rows, columns = (torch.tensor(places, device=x.device) for places in (windows.rows, windows.columns))
                mean[which[:, None, None], :, rows[:, None], columns] = found.permute(0, 2, 3, 1)
                work = Work(work.pairs + done.pairs, work.weighed + done.weighed)
        return LocalAnswer(asked.layout.rows(mean), work=work)


def _centres(x: Tensor, sigma: Tensor, k: int) -> Tensor:
    """[B, C]: near the median of each channel of each query, which a few pixels that lie far away do not move.

    In whole steps, so that most queries have one centre, often 0, and share the work on the data.
    """
    step = (_OFF * sigma / (k * math.sqrt(x.shape[1])))[:, None]  # of each number; _OFF sigma in the norm of a patch
    return (x.flatten(2).median(2).values / step).round() * step + 0.0  # -0 is 0


@dataclass(frozen=True)
class _Windows:
    """Pixels rows x columns whose windows have one shape, and where such windows lie in the data.

    around  how far the window reaches up, down, left and right
    wrapped how far query and data are continued periodically before windows are taken: 0 or half a window
    inner   whether candidates are those whose window fits into the image as it is
    """

    rows: tuple[int, ...]
    columns: tuple[int, ...]
    around: tuple[int, int, int, int]
    wrapped: int = 0
    inner: bool = False

    def patches(self, images: Tensor, *, of_data: bool) -> tuple[Tensor, Tensor]:
        """Patches [n, D, S] around the pixels, or candidates, and the values [n, C, S] there; images [n, C, H, W]."""
        up, down, left, right = self.around
        if of_data and self.inner:
            height, width = (size - 2 * self.wrapped for size in images.shape[-2:])
            values = images[..., self.wrapped : self.wrapped + height, self.wrapped : self.wrapped + width]
            cut = images
        else:
            values = images[..., self.rows[0] : self.rows[-1] + 1, self.columns[0] : self.columns[-1] + 1]
            edge = self.wrapped
            continued = F.pad(images, (edge,) * 4, mode="circular") if edge else images
            top, start = self.rows[0] - up + edge, self.columns[0] - left + edge
            bottom, end = self.rows[-1] + down + edge + 1, self.columns[-1] + right + edge + 1
            cut = continued[..., top:bottom, start:end]
        return F.unfold(cut, (up + down + 1, left + right + 1)), values.flatten(2)


def _windows(form: Displaced, height: int, width: int) -> Iterator[_Windows]:
    half = form.k // 2
    if form.rule != "broken":
        rows, columns = tuple(range(height)), tuple(range(width))
        yield _Windows(rows, columns, (half,) * 4, wrapped=half, inner=form.rule == "valid")
        return
    for (up, down), rows in _clipped(height, half).items():
        for (left, right), columns in _clipped(width, half).items():
            yield _Windows(rows, columns, (up, down, left, right))


def _clipped(size: int, half: int) -> dict[tuple[int, int], tuple[int, ...]]:
    """Places along an axis by how far their windows reach to either side: neighbours, if there are several."""
    found: dict[tuple[int, int], tuple[int, ...]] = {}
    for place in range(size):
        reach = min(half, place), min(half, size - 1 - place)
        found[reach] = (*found.get(reach, ()), place)
    return found


class _Block(NamedTuple):
    """Candidates of images rows: factors [D + 2, n S] of their logits, and values [C, n S]."""

    rows: slice
    factors: Tensor
    values: Tensor


class _Sums:
    """The streaming softmax of the pixels of one `_Windows`, for queries of one centre [C]: B P rows."""

    def __init__(self, x: Tensor, query: Query, windows: _Windows, centre: Tensor) -> None:
        patches, values = windows.patches(x, of_data=False)  # [B, D, P], [B, C, P]
        self.windows, self.batch, self.pixels = windows, patches.shape[0], patches.shape[2]
        self.candidates = windows.patches(x[:1], of_data=True)[1].shape[2]
        prior = query.prior_of_rows
        self.shared = prior if prior is not None and prior.ndim == 1 else None
        self.own = prior if prior is not None and prior.ndim == 2 else None
        rows = patches.movedim(1, 2).flatten(0, 1)  # [B P, D]
        self.centre = centre.repeat_interleave(rows.shape[1] // len(centre))  # [D]: a window of each channel
        precision = query.sigma.to(x).reciprocal().square().repeat_interleave(self.pixels)[:, None]
        # times [b, -|b|^2 / 2, log pi] of a candidate
        self.factors = torch.cat([(rows - self.centre) * precision, precision, torch.ones_like(precision)], 1)
        self.best = torch.full((len(rows),), -torch.inf, dtype=x.dtype, device=x.device)
        self.mass, self.total = torch.zeros_like(self.best), x.new_zeros(len(rows), values.shape[1])
        self.add = add_to_sums if MISSING or x.device.type != "cpu" else add_given

    def over(self, images: Tensor, *, mirrored: bool) -> tuple[Tensor, Work]:
        """The means of these pixels, [B, C, rows, columns], and how many pairs were looked at and weighed."""
        copies = 2 if mirrored else 1
        cut = math.log(copies * len(images) * self.candidates / EPS)
        weighed = 0
        for copy in range(copies):
            for block in self._blocks(images, mirrored=bool(copy)):
                weighed += sum(self._weigh(block, part, cut) for part in self._parts(block))
        mean = (self.total / self.mass[:, None]).unflatten(0, (self.batch, self.pixels)).movedim(2, 1)
        pairs = len(self.best) * copies * len(images) * self.candidates
        return mean.unflatten(2, (len(self.windows.rows), len(self.windows.columns))), Work(pairs, weighed)

    def _parts(self, block: _Block) -> Iterator[slice]:
        """The pixels of all queries, as many at a time as one image's candidates leave room for."""
        step = max(1, _LOGITS // block.factors.shape[1])
        return (slice(start, start + step) for start in range(0, len(self.best), step))

    def _weigh(self, block: _Block, part: slice, cut: float) -> int:
        """Adds a block's candidates to a part of the pixels; how many were weighed."""
        logits = self.factors[part] @ block.factors  # [rows, n S]
        if self.own is not None:
            own = self.own[:, block.rows].to(logits).repeat_interleave(self.pixels, 0)[part]
            logits += own.repeat_interleave(self.candidates, 1)
        return self.add(logits, block.values, cut, (self.best[part], self.mass[part], self.total[part]))

    def _blocks(self, images: Tensor, *, mirrored: bool) -> Iterator[_Block]:
        step = max(1, _LOGITS // (len(self.best) * self.candidates))
        for start in range(0, len(images), step):
            rows = slice(start, start + step)
            points = model_space(images[rows], torch.float64)
            patches, values = self.windows.patches(points.flip(-1) if mirrored else points, of_data=True)
            patches = patches.movedim(1, 0).flatten(1) - self.centre[:, None]  # [D, n S]
            log_pi = patches.new_zeros(len(points)) if self.shared is None else self.shared[rows].to(patches)
            factors = [patches, -patches.square().sum(0)[None] / 2, log_pi.repeat_interleave(self.candidates)[None]]
            yield _Block(rows, torch.cat(factors), values.movedim(1, 0).flatten(1))


def _check_weighed(mass: Tensor) -> None:
    """Raise ValueError where no candidate has a weight: their logits are no numbers, as x is too far away."""
    if not bool((mass > 0).all()):
        raise ValueError(
            "x: expected within reach of the data, found squared distances over sigma^2 that overflow float64; allowed "
            "smaller values of x and data, or a larger sigma"
        )


def add_to_sums(logits: Tensor, values: Tensor, cut: float, sums: tuple[Tensor, Tensor, Tensor]) -> int:
    """Adds candidates to each row's largest logit, mass and total: the twin of `geodiff.backends.cpu.add_given`.

    logits [rows, count] are written over; values [C, count]; sums [rows], [rows] and [rows, C]
    """
    best, mass, total = sums
    top = logits.amax(1)
    active = top - best > -cut  # not top > best - cut: of large numbers best - cut is best
    count = int(active.sum())
    if count == 0:
        return 0
    chosen: Tensor | slice = slice(None)
    if count < len(top):
        chosen = active.nonzero()[:, 0]
        logits = logits[chosen]
    new = torch.maximum(best[chosen], top[chosen])
    weights = logits.sub_(new[:, None]).exp_()
    scale = (best[chosen] - new).exp()
    mass[chosen] = mass[chosen] * scale + weights.sum(1)
    total[chosen] = total[chosen] * scale[:, None] + weights @ values.T
    best[chosen] = new
    return weights.numel()
