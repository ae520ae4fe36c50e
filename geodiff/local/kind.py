"""What a kind of local denoiser is asked for: the form of its posteriors at a noise level."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable
from typing import NamedTuple, TypeAlias

from torch import Tensor

from geodiff.reference.forms import Form

#: Sizes of windows: one, or one for each noise level.
Patch: TypeAlias = int | Callable[[float], int]
#: PSPC-Flex's masks bool [A, H, W]: the same at all levels, or for each noise level.
MaskSource: TypeAlias = Tensor | Callable[[float], Tensor]


class Settings(NamedTuple):
    """What `LocalDenoiser` is made with, for the kind that it is: patch, masks, threshold and temperature."""

    patch: Patch = 3
    masks: MaskSource | None = None
    threshold: float = 0.05
    temperature: float = 1.0


class Source(NamedTuple):
    """The data, for kinds that look at them: images [N, C, H, W] as stored, with their mirror images or without.

    version: another one when the images have moved or changed
    """

    images: Tensor
    mirrored: bool
    version: Hashable


class Kind(ABC):
    """The forms of one kind. Made of (shape (C, H, W), settings); raises by name for settings that do not fit."""

    @abstractmethod
    def key(self, sigma: float) -> Hashable:
        """What the form at that level depends on: queries of one key are answered together."""

    @abstractmethod
    def form(self, key: Hashable, source: Source) -> Form:
        """The form for a key."""
