"""What a backend of local denoisers must offer: one class that holds prepared rows and answers batches of queries."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from geodiff.backends import Query
from geodiff.reference.forms import Form


class Layout(NamedTuple):
    """Where the number (c, u, v) of an image lies in its row: at c strides[0] + u strides[1] + v strides[2].

    shape   C, H, W
    strides in numbers; rows are C H W numbers, in any order of the three axes
    """

    shape: tuple[int, int, int]
    strides: tuple[int, int, int]

    def images(self, rows: Tensor) -> Tensor:
        """[n, d] as [n, C, H, W], a view of contiguous rows."""
        rows = rows.contiguous()
        return rows.as_strided((len(rows), *self.shape), (rows.shape[1], *self.strides), rows.storage_offset())

    def rows(self, images: Tensor) -> Tensor:
        """[n, C, H, W] as [n, d]."""
        out = images.new_empty(len(images), images.shape[1:].numel())
        self.images(out).copy_(images)
        return out


@dataclass(frozen=True, eq=False, slots=True)
class LocalQuery:
    """Queries of one form against a range of rows; images are flat in the order that rows are stored in.

    query    x [B, d] float32 or float64 in model space, sigma [B] float64, rows, log_prior, exclude and tol, as
             engines of the optimal denoiser take them
    form     which posteriors there are (`geodiff.reference.forms`): Windows(k, circular), Crops(k), ...
    layout   where a pixel lies in a row
    mirrored whether the mirror image of each row is one more image, along the last axis; it has the number N + i, and
             an excluded row takes its mirror image along. Each pair shares its prior weight
    details  whether variance, ess and nearest are wanted
    """

    query: Query
    form: Form
    layout: Layout
    mirrored: bool = False
    details: bool = False


class Work(NamedTuple):
    """pairs of a pixel and a candidate that there were, all of them looked at, and how many of them were weighed."""

    pairs: int
    weighed: int


class LocalAnswer(NamedTuple):
    """mean [B, d] float32 or float64, to the `tol` of the query per pixel; the rest only where `details` asks for it.

    variance [B, d], ess [B, *A], nearest int64 [B, *A] and log_mass [B, *A]: those of
    `geodiff.reference.local.Posteriors`, images flat as they are stored, rows by their number among all rows.
    work where the engine counts it.
    """

    mean: Tensor
    variance: Tensor | None = None
    ess: Tensor | None = None
    nearest: Tensor | None = None
    log_mass: Tensor | None = None
    work: Work | None = None


class LocalEngine(ABC):
    """A data set made ready for one backend: rows [N, d] as stored."""

    def __init__(self, rows: Tensor) -> None:
        self.rows = rows

    @staticmethod
    @abstractmethod
    def missing() -> str:
        """Why it cannot be used here at all; "" where it can."""

    @staticmethod
    def automatic(rows: Tensor) -> bool:
        """Whether it may be taken for rows there without being asked for by name."""
        return True

    @abstractmethod
    def serves(self, asked: LocalQuery) -> bool:
        """Whether it answers this: its form, dtypes and device, `mirrored`, `details`, and its `tol`."""

    @abstractmethod
    def answer(self, asked: LocalQuery) -> LocalAnswer:
        """r of each query, |r - r64| <= tol max(|r64|, 0.01 max_i |x_i|) at every pixel, |.| over channels.

        r64 and x_i there are those of the pixel. Called with finite x and levels in range only. Bit for bit the same
        for the same question and number of threads.
        """


def layout_of(images: Tensor) -> Layout:
    """The layout of images [N, C, H, W] whose rows lie one after another, in any order of axes."""
    c, h, w = images.shape[1:]
    return Layout((c, h, w), tuple(images.stride()[1:]))  # type: ignore[arg-type]


def axes(shape: Sequence[int]) -> tuple[int, int, int]:
    """shape as (C, H, W). Raises ValueError for points that are no images."""
    if len(shape) != 3:
        raise ValueError(f"data: expected images [N, C, H, W], found points of shape {list(shape)}; allowed three axes")
    c, h, w = shape
    return c, h, w
