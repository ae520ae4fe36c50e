"""One posterior out of those over parts of the data: rows that lie on several ranks, points and their mirror images.

With M_k the logarithm of the prior weight of what a query sees of part k, and r_k, log p_k, ... the part's own answer,

    alpha_k = softmax_k(M_k + log p_k)        r = sum_k alpha_k r_k
    log p = logsumexp_k(M_k + log p_k) - logsumexp_k M_k
    entropy = sum_k alpha_k (entropy_k - log alpha_k)        1 / ess = sum_k alpha_k^2 / ess_k
    tr Cov = sum_k alpha_k (tr Cov_k + |r_k - r|^2)

The parts' own errors may add up to more than contract 1 allows the whole, and an error of a log p_k moves weight from
one part to another, so that r moves by as much of the distance between them. So the whole has a bound of its own, made
of those of the parts (docs/scale.md derives it), and where that exceeds the contract the parts are asked again.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from geodiff.backends.query import FLOAT64, Direction
from geodiff.base.posterior import Bounds, Posterior

#: What parts are asked for at first, of what the whole may be off by: the rest is for what merging adds.
_SHARE = 0.9
#: What they are asked for again: half for their own errors, half for what an error of a log p_k moves; and a reserve.
_HALF = 0.45
#: Sums in float32 promise no less than this, whatever their bounds, which leave rounding aside, say.
_FINEST = 1e-6
#: Means of so many numbers in all are gathered with what is said of them: one message costs a rank as much as the
#: other, some 0.3 ms of processor time over gloo, and each has to wait for the slowest.
_SMALL = 2**16
_BELOW_ONE = 1 - 2.0**-53
_MOST = 2**40  # of a sum that float64 holds exactly
_T = TypeVar("_T")


class Ranks(Protocol):
    """Those among whom the parts lie: `geodiff.distributed.ranks`, or `ALONE`. All calls are collective."""

    rank: int
    size: int

    def gathered(self, values: Tensor) -> Tensor:
        """[...] of this rank -> [K, ...] of all."""

    def total(self, values: Tensor) -> Tensor:
        """The sum over all ranks."""

    def objects(self, one: _T) -> list[_T]:
        """What each rank has to say, in rank order."""

    def first_says(self, one: _T) -> _T:
        """What the first rank has to say: of files, say, which others may see later."""

    def share(self, count: int) -> range:
        """This rank's part of 0..count - 1."""


class _Alone:
    """All parts lie here."""

    rank, size = 0, 1

    def gathered(self, values: Tensor) -> Tensor:
        return values[None]

    def total(self, values: Tensor) -> Tensor:
        return values

    def objects(self, one: _T) -> list[_T]:
        return [one]

    def first_says(self, one: _T) -> _T:
        return one

    def share(self, count: int) -> range:
        return range(count)


ALONE = _Alone()


@dataclass(frozen=True, eq=False)
class Part:
    """What the data here have to say of B queries, in P parts: the points, and where they count their mirror images.

    x       [B, d], which must be the same on all ranks
    mass    [P, B] float64: M_k; -inf where there is nothing here that the query sees: its answer is then not looked at
    answer  [P, B, ...] float64, finite, with a trace (NaN if it was not asked for) and bounds; indices count through
            all ranks, -1 for none
    logits  [P, B, k]: M_k + log pi_i - |x - x_i|^2 / 2 sigma^2 of the indices, which ranks them between parts, where
            weights may have underflowed; -inf for none
    """

    x: Tensor
    mass: Tensor
    answer: Posterior
    logits: Tensor

    @property
    def trace(self) -> Tensor:
        """tr Cov_k, [P, B]."""
        assert self.answer.trace is not None, "the answers of parts hold a trace"
        return self.answer.trace

    @property
    def bounds(self) -> Bounds:
        """[P, B] each."""
        assert self.answer.bounds is not None, "the answers of parts hold bounds"
        return self.answer.bounds


class Allowed(NamedTuple):
    """What an answer may be off by: tol max(|r|, least) in r, log_tol in log p."""

    tol: float
    log_tol: float
    least: float


#: Asks the part that is here about some of the queries (None: all): ask(which, tol, log_tol).
Ask = Callable[[Tensor | None, float, float], Part]


class _Merged(NamedTuple):
    """The whole and |r|; of its parts sum_k alpha_k |r_k|, and sqrt(sum_k alpha_k |r_k - r|^2); [B] each."""

    whole: Posterior
    length: Tensor
    lengths: Tensor
    apart: Tensor


def answer(ranks: Ranks, ask: Ask, allowed: Allowed) -> Posterior:
    """The whole answer to contract 1, with bounds on its error.

    All ranks compute the same numbers from what was gathered, and so decide alike who is asked again.
    """
    found = _merged(ranks, ask(None, _SHARE * allowed.tol, allowed.log_tol), allowed.tol)
    for bounded in (True, False):
        open_ = _beyond(found, allowed).nonzero()[:, 0]
        if len(open_) == 0:
            break
        # Once for what the numbers say will do; then in float64, which leaves nothing to be bounded.
        asked = _needed(found, open_, allowed) if bounded else (FLOAT64, FLOAT64)
        again = _merged(ranks, ask(open_, *asked), asked[0])
        found = _with(found, open_, again)
    return found.whole


def covariance(ranks: Ranks, part: Part, direction: Direction, found: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Cov_w(c, x_i) [B, d] and Cov_w(c, |x - x_i|^2) [B] by the law of total covariance.

    found  [P, B, d] and [P, B]: those of each part, about its own mean; `direction.mean` is that of the whole
    """
    mean = part.answer.mean
    far = part.trace + (mean - part.x.double()).square().sum(2)  # E |x - x_i|^2
    c = (mean * direction.v).sum(2) + direction.slope * far
    mass, log_prob, all_c, all_far = _of_all(ranks, torch.stack([part.mass, part.answer.log_prob, c, far])).unbind(0)
    alpha, _ = _shares(mass, log_prob)
    gap, gap_far = c - (alpha * all_c).sum(0), far - (alpha * all_far).sum(0)
    rows = found[0] + gap[..., None] * (mean - direction.mean)
    both = torch.cat([rows, (found[1] + gap * gap_far)[..., None]], 2)
    both = ranks.total((_here(ranks, alpha)[..., None] * both).sum(0))
    return both[:, :-1], both[:, -1]


def dealt(ranks: Ranks, part: Part, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Which of the numbers uniform [B, n] fall to the parts here, bool [P, B, n], and what is left of them there.

    Part k has those from alpha_1 + ... + alpha_(k-1) on, stretched to [0, 1) again: its rows' share of a draw.
    """
    mass, log_prob = _of_all(ranks, torch.stack([part.mass, part.answer.log_prob])).unbind(0)
    alpha = _shares(mass, log_prob)[0][..., None]  # [P K, B, 1]
    ends = alpha.cumsum(0)
    # Rounding may leave a number beyond the last end: it is the last part's that has any weight.
    last = len(alpha) - 1 - (alpha > 0).flip(0).int().argmax(0)  # [B, 1]
    taker = (uniform >= ends).sum(0).minimum(last)  # [B, n]
    mine = _here(ranks, torch.arange(len(alpha), device=taker.device))
    rest = ((uniform - _here(ranks, ends - alpha)) / _here(ranks, alpha)).clamp(0, _BELOW_ONE)
    return taker == mine[:, None, None], rest.nan_to_num(0, 0, 0)  # 0/0 where a share underflowed: it is not asked


def _of_all(ranks: Ranks, values: Tensor) -> Tensor:
    """[m, P, B] of the parts here -> [m, P K, B] of all: the first part of every rank, then the second."""
    return ranks.gathered(values).movedim(0, 2).flatten(1, 2)


def _here(ranks: Ranks, values: Tensor) -> Tensor:
    """[P K, ...] of all parts, in that order -> [P, ...] of those here."""
    return values.unflatten(0, (-1, ranks.size))[:, ranks.rank]


def _summed(ranks: Ranks, own: Tensor, mean: Tensor, tol: float) -> Tensor:
    """sum_k alpha_k r_k [B, d] float64, where alpha [P, B] and r [P, B, d] are those of the parts here.

    Each rank's share is sent in float32 where its own error is larger than that rounds.
    """
    share = own[0][:, None] * mean[0]
    for alpha, r in zip(own[1:], mean[1:], strict=True):
        share.addcmul_(alpha[:, None], r)
    if ranks.size > 1 and tol >= _FINEST:
        return ranks.total(share.float()).double()
    return ranks.total(share)


def _merged(ranks: Ranks, part: Part, tol: float) -> _Merged:
    mine, bounds = part.answer, part.bounds
    square = torch.linalg.vector_norm(mine.mean, dim=2).square()
    same = _bits(part.x)
    numbers = (part.mass, mine.log_prob, mine.entropy, mine.ess, part.trace, square, *bounds, same.expand_as(square))
    told, means = torch.stack(numbers), None
    if ranks.size * mine.mean.numel() <= _SMALL:
        told, means = _of_all(ranks, torch.cat([told, mine.mean.movedim(2, 0)])).split([len(told), mine.mean.shape[2]])
    else:
        told = _of_all(ranks, told)
    mass, log_prob, entropy, ess, trace, square, off, off_log, same = told.unbind(0)
    _check_alike(same)
    if bool(mass.isneginf().all(0).any()):
        raise ValueError(
            "class_labels, mask, exclude: expected a point of weight above 0 for every query, found none on any rank "
            "for one; allowed conditions that leave a query something to see"
        )
    alpha, total = _shares(mass, log_prob)
    own = _here(ranks, alpha)
    # How far the parts' means are apart: not by the lengths of r_k and r, which may be far longer than that.
    if means is not None:
        mean = (alpha * means).sum(1).T.contiguous()
        apart = (alpha * (means - mean.T[:, None]).square().sum(0)).sum(0)
    else:
        mean = _summed(ranks, own, mine.mean, tol)
        apart = ranks.total((own * (mine.mean - mean).square().sum(2)).sum(0))
    length = torch.linalg.vector_norm(mean, dim=1)
    error = off_log.masked_fill(mass.isneginf(), 0).amax(0)
    moved = torch.expm1(2 * error) / 2 * apart.sqrt()
    indices, weights = _heaviest(ranks, part, own)
    whole = Posterior(
        mean=mean,
        log_prob=total - mass.logsumexp(0),
        entropy=(alpha * entropy).sum(0) + torch.special.entr(alpha).sum(0),
        ess=1 / (alpha.square() / ess).sum(0),
        indices=indices,
        weights=weights,
        trace=(alpha * trace).sum(0) + apart,
        bounds=Bounds(torch.exp(2 * error) * (alpha * off).sum(0) + moved, error),
    )
    return _Merged(whole, length, (alpha * square.sqrt()).sum(0), apart.sqrt())


def _bits(x: Tensor) -> Tensor:
    """A sum over the bits of each query, [B]."""
    if x.numel() == 0:  # whose strides may be any
        return torch.zeros(len(x), dtype=torch.float64, device=x.device)
    return x.detach().contiguous().view(torch.int32).sum(1, dtype=torch.int64).remainder(_MOST).double()


def _check_alike(same: Tensor) -> None:
    """same [P K, B]: a sum over the bits of each query, by rank."""
    different = (same != same[:1]).any(1).nonzero()[:, 0].tolist()
    if different:
        raise ValueError(
            f"x: expected the same queries on all ranks, found others on rank {different[0]} than on rank 0; allowed "
            f"noise from one seed, or parts of a batch in a process group of their own"
        )


def _heaviest(ranks: Ranks, part: Part, own: Tensor) -> tuple[Tensor, Tensor]:
    """Indices and weights [B, k] of the largest logits of all parts; of equals the lower index comes first.

    own  alpha [P, B] of the parts here
    """
    k = part.logits.shape[2]
    if k == 0:
        return part.answer.indices[0], part.answer.weights[0]
    weights = own[..., None] * part.answer.weights
    listed = torch.stack([part.logits, weights, part.answer.indices.double()])  # indices are exact: below 2^53
    found = ranks.gathered(listed).movedim(3, 1).transpose(0, 2)  # [3, B, K, P, k]
    logits, weights, indices = found.flatten(2).unbind(0)  # [B, K P k]
    by_index = indices.argsort(dim=1)
    order = by_index.gather(1, logits.gather(1, by_index).argsort(dim=1, descending=True, stable=True))[:, :k]
    return indices.gather(1, order).long(), weights.gather(1, order)


def _shares(mass: Tensor, log_prob: Tensor) -> tuple[Tensor, Tensor]:
    """alpha [P K, B], and logsumexp_k(M_k + log p_k) [B]."""
    logit = mass + log_prob  # -inf where there is no mass: log p is finite
    # Not exp(logit - total): where log p is large, both are rounded to what lies far apart, and shares would not sum
    # to 1.
    return logit.softmax(0), logit.logsumexp(0)


def _scale(found: _Merged, allowed: Allowed) -> Tensor:
    """What `tol` is relative to, [B]."""
    return found.length.clamp(min=allowed.least)


def _beyond(found: _Merged, allowed: Allowed) -> Tensor:
    """Queries, bool [B], whose bounds exceed what is allowed."""
    bounds = found.whole.bounds
    assert bounds is not None
    return (bounds.mean > allowed.tol * _scale(found, allowed)) | (bounds.log_prob > allowed.log_tol)


def _needed(found: _Merged, which: Tensor, allowed: Allowed) -> tuple[float, float]:
    """tol and log_tol for the parts with which the whole will keep its own, for these queries."""
    scale, lengths, apart = (value[which] for value in (_scale(found, allowed), found.lengths, found.apart))
    tol = _HALF * allowed.tol * scale / (lengths + allowed.least)
    log_tol = _HALF * allowed.tol * scale / apart.clamp(min=1e-300)
    wanted = float(tol.min()), min(float(log_tol.min()), allowed.log_tol)
    return wanted if min(wanted) >= _FINEST else (FLOAT64, FLOAT64)


def _with(found: _Merged, which: Tensor, again: _Merged) -> _Merged:
    """`found` with the answers to some queries taken anew."""

    def put(old: Tensor | None, new: Tensor | None) -> Tensor:
        assert old is not None
        assert new is not None
        return old.index_copy(0, which, new)

    before, after = found.whole, again.whole
    assert before.bounds is not None
    assert after.bounds is not None
    names = ("mean", "log_prob", "entropy", "ess", "indices", "weights", "trace")
    fields: dict[str, Any] = {name: put(getattr(before, name), getattr(after, name)) for name in names}
    bounds = Bounds(*(put(*pair) for pair in zip(before.bounds, after.bounds, strict=True)))
    whole = replace(before, **fields, bounds=bounds)
    return _Merged(whole, *(put(*pair) for pair in zip(found[1:], again[1:], strict=True)))
