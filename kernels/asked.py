"""What an evaluation is asked: which queries, against which rows, and these rows a chunk at a time."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from geodiff.kernels.seen import Seen


@dataclass(frozen=True)
class Chunk:
    """Some of the rows asked for: where they lie in the data, and what queries see of them."""

    rows: slice
    seen: Seen


@dataclass(frozen=True)
class Asked:
    """Queries against rows [first, first + n) of the data."""

    first: int
    n: int
    x: Tensor  # [B, d] in model space, columns side by side
    sigma: Tensor  # [B] float64
    seen: Seen
    tol: float

    @property
    def rows(self) -> slice:
        """The rows, of all of the data."""
        return slice(self.first, self.first + self.n)

    def chunks(self, size: int) -> Iterator[Chunk]:
        """The rows, up to `size` at a time."""
        for start in range(0, self.n, size):
            part = slice(start, min(start + size, self.n))
            yield Chunk(slice(self.first + part.start, self.first + part.stop), self.seen.part(part))

    def numbers(self, chunk: Chunk) -> Tensor:
        """Of the rows of a chunk, int64 [C], counted from the first row asked for."""
        return torch.arange(chunk.rows.start - self.first, chunk.rows.stop - self.first, device=self.x.device)
