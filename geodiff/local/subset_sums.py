"""Sums of many subsets of the same numbers, by what neighbouring subsets differ in.

Subsets of PCA locality are blobs around their output: those of neighbours differ in their edges alone. A tree over the
subsets, of least total difference, says from which other sum each is made; the sums are then made in the order of a
walk down it. CIFAR-10, threshold 0.05: 27 to 110 additions a sum from sigma 0.1 to 60, of 55 to 2,721 members.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

#: Where a step starts: from nothing, or from the sum that the step before it made. Else a place where one was kept.
NOTHING, PREVIOUS = -2, -1
#: A step that keeps its sum nowhere.
NOWHERE = -1


class Step(NamedTuple):
    """Makes the sum of subset `output` from an earlier one: less the next `minus` terms, and the next `plus` more."""

    output: int
    minus: int
    plus: int
    start: int
    keep: int


@dataclass(frozen=True, eq=False)
class SubsetSums:
    """How all sums are made, one after the other.

    steps     int32 [outputs, 5]: `Step`s, in their order
    terms     int32: numbers of the members that steps take, one step's after the other's
    places    how many sums have to be kept at a time
    largest   members of a subset
    additions the most that one sum is the end of, all steps that led to it together
    """

    steps: Tensor
    terms: Tensor
    places: int
    largest: int
    additions: int

    def of(self, values: Tensor) -> Tensor:
        """sum of values over each subset, [..., outputs], for values [..., members]; in the order of the steps."""
        out = values.new_zeros(*values.shape[:-1], len(self.steps))
        kept: dict[int, Tensor] = {}
        now, first = values.new_zeros(values.shape[:-1]), 0
        for step in self._steps():
            if step.start != PREVIOUS:
                now = torch.zeros_like(now) if step.start == NOTHING else kept[step.start]
            middle, last = first + step.minus, first + step.minus + step.plus
            less, more = (self.terms[part].long() for part in (slice(first, middle), slice(middle, last)))
            now = now - values[..., less].sum(-1) + values[..., more].sum(-1)
            out[..., step.output] = now
            if step.keep != NOWHERE:
                kept[step.keep] = now
            first = last
        return out

    def _steps(self) -> Iterator[Step]:
        return (Step(*step) for step in self.steps.tolist())


def one_by_one(subsets: Tensor) -> SubsetSums:
    """Every sum from nothing: of numbers of one sign, as exact as they. subsets bool [members, outputs]."""
    sizes = subsets.sum(0)
    steps = torch.zeros(subsets.shape[1], 5, dtype=torch.int32, device="cpu")
    steps[:, 0], steps[:, 2] = torch.arange(len(steps), device="cpu"), sizes
    steps[:, 3], steps[:, 4] = NOTHING, NOWHERE
    return SubsetSums(steps, subsets.T.nonzero()[:, 1].int(), 0, int(sizes.max()), int(sizes.max()))


def by_differences(subsets: Tensor) -> SubsetSums:
    """Sums along the tree of least total difference; subsets bool [members, outputs], on the CPU."""
    above, order = _tree(subsets)
    below: list[list[int]] = [[] for _ in order]
    size = [1] * len(order)
    for output in reversed(order):
        if above[output] >= 0:
            size[above[output]] += size[output]
            below[above[output]].append(output)
    for several in below:
        several.sort(key=size.__getitem__)  # the largest part of the tree last: what it starts from is kept no longer
    walk = _Walk(subsets.T.contiguous(), above, below)
    for root in order:
        if above[root] < 0:
            walk.down(root)
    steps = torch.tensor(walk.steps, dtype=torch.int32, device="cpu")
    return SubsetSums(steps, torch.cat(walk.terms).int(), walk.places, int(subsets.sum(0).max()), max(walk.additions))


def _tree(subsets: Tensor) -> tuple[list[int], list[int]]:
    """From which subset each is made, -1 for nothing, and an order in which all come after it. Prim's algorithm."""
    members = subsets.float()  # counts up to 2^24 are exact
    size = members.sum(0)
    apart = (size[:, None] + size).addmm_(members.T, members, alpha=-2)
    least, above = size.clone(), torch.full(size.shape, -1, device="cpu")
    left, order = torch.ones_like(size, dtype=torch.bool), []
    for _ in range(len(size)):
        output = int(least.masked_fill(~left, torch.inf).argmin())
        left[output] = False
        order.append(output)
        nearer = left & (apart[output] < least)
        least[nearer], above[nearer] = apart[output][nearer], output
    return above.tolist(), order


class _Walk:
    """The steps of a walk down the tree: below a sum one part after the other, the sum kept for all but the first."""

    def __init__(self, subsets: Tensor, above: list[int], below: list[list[int]]) -> None:
        self._subsets, self._above, self._below = subsets, above, below  # [outputs, members]
        self._kept: dict[int, int] = {}
        self._free: list[int] = []
        self._previous = -1
        self.steps: list[Step] = []
        self.terms: list[Tensor] = []
        self.additions = [0] * len(above)
        self.places = 0

    def down(self, root: int) -> None:
        stack = [root]
        while stack:
            output = stack.pop()
            self._step(output)
            stack.extend(reversed(self._below[output]))

    def _step(self, output: int) -> None:
        above = self._above[output]
        own = self._subsets[output]
        other = torch.zeros_like(own) if above < 0 else self._subsets[above]
        minus, plus = ((one & ~two).nonzero()[:, 0] for one, two in ((other, own), (own, other)))
        start = NOTHING if above < 0 else PREVIOUS if above == self._previous else self._kept[above]
        if above in self._kept and output == self._below[above][-1]:
            self._free.append(self._kept.pop(above))
        keep = NOWHERE
        if len(self._below[output]) > 1:
            keep = self._kept[output] = self._free.pop() if self._free else self.places
            self.places = max(self.places, keep + 1)
        self.additions[output] = len(minus) + len(plus) + (self.additions[above] if above >= 0 else 0)
        self.steps.append(Step(output, len(minus), len(plus), start, keep))
        self.terms += [minus, plus]
        self._previous = output
