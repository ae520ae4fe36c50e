"""Sizes of windows by noise level, k(sigma): those that were published, and any of one's own."""

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from geodiff.base.arguments import check_integer, check_number, check_reals
from geodiff.base.errors import DataError
from geodiff.base.files import atomic_path
from geodiff.schedules import karras

#: sigma(t) = tan(pi t / 2.016) at t = 1/20, 2/20, .., 1: the cosine schedule that the tables of LS are over.
COSINE = tuple(math.tan(math.pi * step / 20 / 2.016) for step in range(1, 21))


@dataclass(frozen=True)
class PatchSchedule:
    """sigma -> k of the nearest level: in log sigma, or as published for PSPC, in sigma itself.

    sigmas  levels, rising
    patches k at each of them
    linear  whether distances between levels are those of sigma
    source  where the numbers come from
    """

    sigmas: tuple[float, ...]
    patches: tuple[int, ...]
    linear: bool = False
    source: str = ""

    def __post_init__(self) -> None:
        levels = check_reals(self.sigmas, "sigmas", "[L]", 1)
        rising = bool((levels > 0).all()) and bool((levels.diff() > 0).all()) and bool(levels.isfinite().all())
        if not rising:
            raise ValueError(
                f"sigmas: expected rising levels > 0, found {list(self.sigmas)}; allowed 0 < s_1 < s_2 < .."
            )
        if len(self.patches) != len(self.sigmas):
            found = f"{len(self.patches)} for {len(self.sigmas)} levels"
            raise ValueError(f"patches: expected one for each level, found {found}; allowed as many as sigmas")
        for k in self.patches:
            check_integer(k, "patches", 1)

    def __call__(self, sigma: float) -> int:
        """k at that level. Raises ValueError unless it is above 0 and finite."""
        at = check_number(float(sigma), "sigma", 0.0)

        def far(level: float) -> float:
            return abs(at - level) if self.linear else abs(math.log(at) - math.log(level))

        return self.patches[min(range(len(self.sigmas)), key=lambda place: far(self.sigmas[place]))]

    def at_most(self, largest: int) -> Self:
        """The same with no k above `largest`, for images smaller than those that it was made for."""
        patches = tuple(min(k, largest) for k in self.patches)
        return type(self)(self.sigmas, patches, self.linear, self.source)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes JSON that `load` reads; an old file is replaced when that is done."""
        with atomic_path(path) as temporary:
            Path(temporary).write_text(json.dumps(self.__dict__, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """What `save` wrote. Raises DataError for a file that holds something else."""
        try:
            fields = json.loads(Path(path).read_text(encoding="utf-8"))
            return cls(tuple(fields["sigmas"]), tuple(fields["patches"]), bool(fields["linear"]), str(fields["source"]))
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(path, f"expected a schedule of patches that `save` wrote, found {error!r}") from error


_LS = "the scale files of Kamb and Ganguli, 2412.20292"
_TABLES = {
    "cifar10_resnet_zeros": (3, 3, 3, 3, 5, 5, 5, 7, 7, 7, 7, 9, 9, 11, 11, 13, 15, 17, 17, 17),
    "cifar10_resnet_circular": (3, 3, 3, 3, 5, 5, 5, 5, 7, 7, 7, 9, 9, 11, 11, 13, 13, 15, 15, 15),
    "cifar10_unet_zeros": (3, 3, 3, 3, 5, 5, 5, 5, 7, 7, 7, 7, 9, 9, 11, 13, 13, 15, 17, 25),
    "celeba_resnet_zeros": (3, 3, 3, 5, 5, 5, 5, 5, 7, 7, 9, 9, 9, 11, 11, 11, 13, 15, 19, 19),
    "celeba_unet_zeros": (3, 3, 3, 3, 3, 3, 3, 5, 5, 5, 5, 5, 7, 7, 9, 9, 9, 13, 19, 27),
    "mnist_resnet_zeros": (3, 3, 5, 5, 5, 7, 7, 7, 9, 9, 11, 11, 11, 11, 13, 15, 15, 15, 15, 15),
    "mnist_unet_zeros": (3, 3, 3, 5, 5, 7, 7, 7, 9, 9, 9, 11, 13, 15, 17, 21, 23, 23, 25, 27),
    "fashionmnist_resnet_zeros": (3, 3, 5, 5, 7, 7, 9, 9, 9, 11, 11, 11, 13, 13, 13, 15, 15, 15, 17, 17),
}
_PSPC = (*[3] * 6, 5, 7, 11, 15, 23, *[32] * 7)  # from the lowest level up

#: name -> schedule. LS and ELS at the levels COSINE, each k at the level that it was calibrated at (published samplers
#: read the next one's). MNIST and FashionMNIST enlarged to 32 x 32. PSPC-Square: 18 Karras levels of CIFAR-10.
PUBLISHED: dict[str, PatchSchedule] = {
    **{name: PatchSchedule(COSINE, patches, source=_LS) for name, patches in _TABLES.items()},
    "cifar10_pspc_square": PatchSchedule(
        tuple(karras(18)[:-1].flip(0).tolist()), _PSPC, linear=True, source="Niedoba et al., 2411.19339"
    ),
}


def published(name: str) -> PatchSchedule:
    """The schedule of that name in `PUBLISHED`; ValueError for none."""
    if name not in PUBLISHED:
        raise ValueError(f"name: expected a published schedule, found {name!r:.60}; allowed {list(PUBLISHED)}")
    return PUBLISHED[name]


def chosen(levels: Sequence[float], patches: Sequence[int], source: str) -> PatchSchedule:
    """A schedule of levels in any order, such as those that a sampler walks down."""
    pairs = sorted(zip(levels, patches, strict=True))
    return PatchSchedule(tuple(level for level, _ in pairs), tuple(k for _, k in pairs), source=source)
