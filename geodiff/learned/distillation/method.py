"""What a method of distillation answers to, and what it is given."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from geodiff.base.denoiser_type import Denoiser
from geodiff.learned.distillation.settings import Distillation
from geodiff.reference.formula import model_space


@dataclass(frozen=True, eq=False)
class Material:
    """What is distilled: the teacher r(x, sigma) (None for CT), data [N, *shape] as stored, a folder, the settings.

    origin  what the teacher is, as JSON holds it
    """

    teacher: Denoiser | None
    data: Tensor
    folder: Path
    settings: Distillation
    origin: dict[str, object]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one point."""
        return tuple(self.data.shape[1:])

    def points(self, generator: torch.Generator) -> Tensor:
        """A batch of data points, [batch, *shape] float32 in model space."""
        chosen = torch.randint(len(self.data), (self.settings.batch,), generator=generator)
        return model_space(self.data[chosen], torch.float32)

    def ask(self, x: Tensor, sigma: Tensor) -> Tensor:
        """r(x; sigma) of the teacher, without gradient; sigma [B]."""
        assert self.teacher is not None, "CT asks no teacher"
        with torch.no_grad():
            return self.teacher(x, sigma)


class Method(Protocol):
    """One way to distil. It is made from `Material`, and asked for a loss at every step."""

    def student(self) -> nn.Module:
        """A new student, untrained."""
        ...

    def prepare(self, progress: Callable[[int, int], object]) -> None:
        """Whatever has to be there before the first step; progress(done, total)."""
        ...

    def loss(self, student: nn.Module, frozen: nn.Module | None, step: int, generator: torch.Generator) -> Tensor:
        """The loss of a batch, 0-d; frozen: the student that the stage before ended with, None in the first."""
        ...
