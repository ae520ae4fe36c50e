"""Samples of a student, in as many evaluations as it was made for."""

import torch
from torch import Tensor

from geodiff.learned.consistency import ConsistencyModel, multistep
from geodiff.learned.denoiser import LearnedDenoiser
from geodiff.learned.trajectory_operator import TrajectoryOperator
from geodiff.learned.weights_file import Network
from geodiff.schedules import karras
from geodiff.solvers import sample

_PART = 128  # noises at once


@torch.no_grad()
def generate(student: Network, noise: Tensor) -> Tensor:
    """Samples [B, C, H, W] from x_T = 80 z: one evaluation, or `end` Euler steps of a student of PD."""
    return torch.cat([_samples(student, part) for part in noise.split(_PART)])


def evaluations(student: Network) -> int:
    """How many `generate` takes for a sample."""
    return len(_grid(student)) - 1


def _samples(student: Network, noise: Tensor) -> Tensor:
    if isinstance(student, TrajectoryOperator):
        return student(noise)[-1]
    if isinstance(student, ConsistencyModel):
        return multistep(student, noise, [80.0], torch.Generator())
    if isinstance(student, LearnedDenoiser):
        return sample(student, noise, _grid(student), "euler", keep="end").states[-1]
    raise TypeError(f"student: expected what `distill` makes, found {type(student).__name__}")


def _grid(student: Network) -> Tensor:
    """Its levels from 80 to 0."""
    origin = student.training_metadata
    if origin.get("distill") != "pd":
        return torch.tensor([80.0, 0.0])
    start, end = (int(str(origin[key])) for key in ("start", "end"))
    return karras(start)[:: start // end]
