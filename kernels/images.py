"""What launches of local denoisers share: images and their tiles, candidates, and what is found."""

from dataclasses import dataclass
from typing import NamedTuple

import triton
from torch import Tensor

from geodiff.base.dtypes import Units, centred_units
from geodiff.kernels.configs import INTERPRETED
from geodiff.kernels.seen import Seen

#: Lines and columns of a tile of differences: an axis of it lies in one warp, whose threads have a place each.
SIDE = 32
CHANNELS = 4  # of a program's sums, at most
PRIORS = 256  # candidates whose prior weights are added up at a time
_PARTS = 256 if not INTERPRETED else 2  # shares of the candidates at most, each a program of its own
_SUMS = 2**22  # numbers in their sums
#: No kernel is compiled for values of these, which go with the batch. Nor for a step of 1: lines whose bytes threads
#: load four at a time have to be dealt out anew for the sums along them, at two barriers for each channel.
ANY = ("B", "n", "candidates", "per_part", "bias_stride", "step")


#: Of ELS, `geodiff.reference.forms.Displaced`.
RULES = {"torus": 1, "valid": 2, "broken": 3}


@dataclass(frozen=True)
class Images:
    """Where the number (c, u, v) of an image lies in its row: at c strides[0] + u strides[1] + v strides[2].

    shape    C, H, W
    reach    along each axis a window has so many pixels before its own, and so many behind it
    circular whether it goes on at the other end of the image, rather than being clipped; then it is no larger
    rule     which places of an image are candidates for a pixel: one of RULES; 0: its own
    """

    shape: tuple[int, int, int]
    strides: tuple[int, int, int]
    reach: tuple[int, int]
    circular: bool = False
    rule: int = 0

    @property
    def shifts(self) -> tuple[int, int]:
        """How many places there are along each axis that a candidate may lie at: with RULES broken, middle ones."""
        height, width = self.shape[1:]
        if self.rule == RULES["broken"]:
            return 2 * max(0, height - sum(self.reach) - 1) + 1, 2 * max(0, width - sum(self.reach) - 1) + 1
        return (height, width) if self.rule else (1, 1)


class Tile(NamedTuple):
    """[HB, WB] pixels of a program, USED each way, or WHOLE images; sums of G channels; and warps.

    SIDE: lines and columns of the differences that its window sums are made of
    """

    HB: int
    WB: int
    USED: int
    WHOLE: bool
    G: int
    warps: int
    SIDE: int

    @property
    def registers(self) -> dict[str, int]:
        """As many as threads can have, for a launch for which ptxas would rather spill some and have more blocks."""
        return {"maxnreg": min(255, 2048 // self.warps)}

    def over(self, images: Images) -> int:
        """How many of them there are over an image."""
        return triton.cdiv(images.shape[1], self.USED) * triton.cdiv(images.shape[2], self.USED)


def whole_tile(images: Images) -> Tile | None:
    """An image of up to SIDE lines and columns; None: a larger one."""
    channels, height, width = images.shape
    if max(height, width) > SIDE:
        return None
    lines, columns = triton.next_power_of_2(height), triton.next_power_of_2(width)
    return Tile(lines, columns, SIDE, True, min(CHANNELS, channels), max(1, lines * columns // 64), SIDE)


def part_tile(images: Images, beyond: int, least: float) -> Tile:
    """A tile of SIDE less what windows reach `beyond` the pixels that are of use, if these are a share `least` of it.

    Else one of half of SIDE, all of use: windows of up to half of SIDE then fit into one tile of differences.
    """
    group, whole = min(CHANNELS, images.shape[0]), SIDE - beyond >= least * SIDE
    side, per_warp = (SIDE, 64) if whole else (SIDE // 2, 32)
    return Tile(side, side, SIDE - beyond if whole else side, False, group, max(1, side * side // per_warp), SIDE)


class Candidates(NamedTuple):
    """rows [n, d] as stored, numbers `first` and on of `of`; `mirrored` has the mirror images as candidates, too."""

    rows: Tensor
    seen: Seen
    first: int
    of: int
    mirrored: bool

    @property
    def all(self) -> int:
        """How many there are."""
        return len(self.rows) * (2 if self.mirrored else 1)

    def per_part(self, numbers: int) -> int:
        """How many there are in a part, of which each has so many numbers for its sums."""
        return triton.cdiv(self.all, max(1, min(_PARTS, _SUMS // numbers)))

    @property
    def units(self) -> Units:
        """Of the rows."""
        return centred_units(self.rows.dtype)


class Found(NamedTuple):
    """mean, variance [B, d] and log_mass, ess, nearest [B, *A], as `geodiff.reference.local.Posteriors` has them."""

    mean: Tensor
    log_mass: Tensor
    variance: Tensor | None = None
    ess: Tensor | None = None
    nearest: Tensor | None = None
