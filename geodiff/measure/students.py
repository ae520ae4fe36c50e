"""What distillation made of a teacher: samples at the same number of evaluations, and what they remember."""

from dataclasses import dataclass

import torch
from torch import Tensor

from geodiff.analysis.quality import PrincipalComponents, frechet_distance, nearest
from geodiff.base.denoiser_type import Denoiser
from geodiff.data import Dataset
from geodiff.denoiser.module import OptimalDenoiser
from geodiff.learned.consistency import ConsistencyModel
from geodiff.learned.distillation import evaluations, generate
from geodiff.learned.weights_file import Network
from geodiff.reference.formula import model_space
from geodiff.schedules import karras
from geodiff.solvers import sample

_LEVELS = (80.0, 20.0, 5.0, 2.0, 1.0, 0.5, 0.2)  # of self-consistency


@dataclass(frozen=True)
class Comparison:
    """A student beside its teacher, from the same noises.

    frechet       of the student's samples from the data, over 64 principal components
    own           of the teacher's Euler solver from them, with as many evaluations on Karras's levels
    teacher       of the teacher's 35 evaluations (Heun)
    end_distance  mean |sample - where the teacher ends|           own_end_distance  that of its own solver
    nearest       mean distance of the student's samples to the nearest data point
    copied        share of them that are copies (`geodiff.quality.Nearest`)
    consistency   of consistency models: sigma -> mean |f(x_sigma, sigma) - x_end| along the teacher's trajectories
    """

    nfe: int
    frechet: float
    own: float
    teacher: float
    end_distance: float
    own_end_distance: float
    nearest: float
    copied: float
    consistency: dict[str, float]


def compare(student: Network, teacher: Denoiser, dataset: Dataset, *, num: int = 1000, seed: int = 77) -> Comparison:
    """Samples of both from `num` noises. Features are fitted to the data, in their units."""
    generator = torch.Generator().manual_seed(seed)
    noise = 80.0 * torch.randn(num, *dataset.data.shape[1:], generator=generator)
    count = evaluations(student)
    features = PrincipalComponents(dataset.data)
    reference = features(model_space(dataset.data, torch.float32))
    samples = generate(student, noise)
    few = karras(count) if count > 1 else torch.tensor([80.0, 0.0])
    own = sample(teacher, noise, few, "euler", keep="end").states[-1]
    whole = sample(teacher, noise, karras(18), "heun")
    end = whole.states[-1]
    found = nearest(OptimalDenoiser(dataset.data), samples)
    return Comparison(
        nfe=count,
        frechet=frechet_distance(features(samples), reference),
        own=frechet_distance(features(own), reference),
        teacher=frechet_distance(features(end), reference),
        end_distance=_apart(samples, end),
        own_end_distance=_apart(own, end),
        nearest=float(found.distance.mean()),
        copied=float(found.copied.double().mean()),
        consistency=_consistency(student, teacher, noise[:64]) if isinstance(student, ConsistencyModel) else {},
    )


@torch.no_grad()
def _consistency(student: ConsistencyModel, teacher: Denoiser, noise: Tensor) -> dict[str, float]:
    """Mean |f(x, sigma) - x_end| for states x at `_LEVELS` of the teacher's trajectories, by Heun's method."""
    grid = torch.cat([karras(60)[:-1], torch.tensor(_LEVELS)]).double().unique().flip(0)
    walk = sample(teacher, noise, torch.cat([grid, torch.zeros(1, dtype=torch.float64)]), "heun")
    ends = walk.states[-1]
    found = {}
    for sigma in _LEVELS:
        at = int((walk.sigmas - sigma).abs().argmin())
        found[f"{sigma:g}"] = _apart(student(walk.states[at], sigma), ends)
    return found


def _apart(a: Tensor, b: Tensor) -> float:
    return float((a - b).flatten(1).norm(dim=1).mean())
