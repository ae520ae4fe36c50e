"""Restoring pictures that no prior has seen: an inverse problem on held-out data, and how near each method comes.

Needs torchmetrics (the extra `restore`) for PSNR and SSIM, imported when used.
"""

import importlib
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from geodiff import learned
from geodiff.base.arguments import check_integer
from geodiff.base.denoiser_type import Denoiser
from geodiff.base.package_name import install_hint
from geodiff.data import Dataset, split
from geodiff.denoiser.module import OptimalDenoiser
from geodiff.inverse import (
    Blur,
    ExactPosterior,
    Inpainting,
    Operator,
    Options,
    Problem,
    Restoration,
    SuperResolution,
    diffpir,
    dps,
    dps_noised,
    gaussian_kernel,
    pigdm,
)
from geodiff.inverse.methods import diffpir as _diffpir
from geodiff.inverse.methods import dps as _dps
from geodiff.inverse.methods import dps_noised as _dps_noised
from geodiff.inverse.methods import pigdm as _pigdm
from geodiff.reference.formula import model_space
from geodiff.schedules import exponential, karras

TASKS = ("inpaint", "deblur", "superres")
#: name -> (the method, the levels it takes by itself, the schedule that they are of)
METHODS: dict[str, tuple[Callable[..., Restoration], Tensor, Callable[..., Tensor]]] = {
    "diffpir": (diffpir, _diffpir.LEVELS, karras),
    "dps": (dps, _dps.LEVELS, karras),
    "dps-yt": (dps_noised, _dps_noised.LEVELS, exponential),
    "pigdm": (pigdm, _pigdm.LEVELS, karras),
}
#: What needs no levels: the posterior mean over the data.
EXACT = "exact"
RANGE = 2.0  # of model space, -1 .. 1

_KERNEL, _WIDTH, _FACTOR = 9, 2.0, 4
_SMALLEST = 6  # half of the window of SSIM, 5 pixels, is mirrored at each edge, which takes one pixel more


@dataclass(frozen=True)
class Setting:
    """What is measured of which pictures. Raises TypeError or ValueError that names the field.

    task     "inpaint": half of the pixels are seen; "deblur": circular Gaussian blur, 9 x 9, width 2; "superres": that
             and every fourth pixel of it. Pictures of fewer than 9 pixels have a smaller kernel
    num      how many pictures, evenly from those held out
    holdout  M, rows of `geodiff.data.split` that no prior may know
    sigma    sigma_n, in units of model space
    seed     of masks and noise
    """

    task: str = "inpaint"
    num: int = 16
    holdout: int = 100
    sigma: float = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise ValueError(f"task: found {self.task!r}; allowed {', '.join(TASKS)}")
        check_integer(self.holdout, "holdout", 1)
        check_integer(self.num, "num", 1, self.holdout)


class Case:
    """The pictures that are sought, what was measured of them, and the data that a prior may know.

    truth    [n, C, H, W] float32           rows   [n] of the data set
    known    [N - M, C, H, W] as stored     problem, exact (the posterior over `known`)
    """

    def __init__(self, dataset: Dataset, setting: Setting) -> None:
        shape = tuple(dataset.data.shape[1:])
        if len(shape) != 3:
            raise ValueError(f"data: expected pictures [N, C, H, W], found points of shape {list(shape)}")
        if min(shape[1:]) < _SMALLEST:
            raise ValueError(
                f"data: expected pictures that SSIM's window of 11 pixels fits into, mirrored at the edges, found "
                f"{shape[1]} x {shape[2]} pixels; allowed {_SMALLEST} or more either way"
            )
        self.dataset, self.setting = dataset, setting
        kept, held = split(len(dataset), setting.holdout)
        self.rows = held[torch.linspace(0, len(held) - 1, setting.num).round().long()]
        self.known = dataset.data[kept]
        self.truth = model_space(dataset.data[self.rows], torch.float32)
        generator = torch.Generator().manual_seed(setting.seed)
        operator = operator_of(setting.task, shape, generator)
        self.problem = Problem.simulated(operator, self.truth, setting.sigma, generator=generator)

    @cached_property
    def exact(self) -> ExactPosterior:
        """What the data say of the measurements."""
        return ExactPosterior(self.known, self.problem)

    def prior(self, name: str, *, backend: str = "auto", tol: float = 1e-5) -> Denoiser:
        """The optimal denoiser of `known` ("optimal"), or weights by file or name. Warns of weights that may have seen
        the pictures: their own notes say on which data they were trained, and how many were held out."""
        if name == "optimal":
            return OptimalDenoiser(self.known, backend=backend, tol=tol)
        network = learned.load(name)
        shape = tuple(self.truth.shape[1:])
        if network.shape != shape:
            raise ValueError(f"prior: expected a network of points {shape}, as the data are, found {network.shape}")
        origin = network.training_metadata
        apart = {"data": self.dataset.name, "N": len(self.known), "holdout": self.setting.holdout}
        if any(origin.get(key, 0) != value for key, value in apart.items()):
            warnings.warn(
                f"{name} may have seen these pictures: it was trained on {origin.get('N')} points of "
                f"{origin.get('data') or 'unknown data'}, {origin.get('holdout', 0)} held out, and not on "
                f"{apart['N']} of {apart['data']}, {apart['holdout']} held out",
                stacklevel=2,
            )
        return network


@dataclass(frozen=True, eq=False)
class Restored:
    """What a method made of a case: images [n, C, H, W], means over them in dB and without unit, evaluations, time."""

    method: str
    images: Tensor
    psnr: float
    ssim: float
    nfe: int
    seconds: float

    def summary(self) -> dict[str, object]:
        """All but the images."""
        return {key: value for key, value in vars(self).items() if key != "images"}


def restore(
    case: Case,
    method: str,
    denoiser: Denoiser,
    *,
    steps: int | None = None,
    progress: Callable[[], object] = lambda: None,
) -> Restored:
    """One method of METHODS, or "exact", on the case. steps: levels above 0, those of the method by itself.

    Its noise comes from the seed of the case. Raises TypeError or ValueError that names the argument.
    """
    check_method(method)
    began = time.perf_counter()
    if method == EXACT:
        found = Restoration(case.exact.mean, 0)
        progress()
    else:
        run, levels, schedule = METHODS[method]
        if steps is not None:
            levels = schedule(steps, sigma_min=float(levels[-2]), sigma_max=float(levels[0]))
        generator = torch.Generator().manual_seed(case.setting.seed + 1)
        options = Options(generator=generator, watch=lambda *_: progress())
        found = run(denoiser, case.problem, levels, options=options)
    seconds = time.perf_counter() - began
    scores = psnr(found.images, case.truth), ssim(found.images, case.truth)
    return Restored(method, found.images, *scores, found.evaluations, seconds)


def check_method(method: str) -> str:
    """method itself; ValueError for a name that is none."""
    if method != EXACT and method not in METHODS:
        raise ValueError(f"method: found {method!r}; allowed {', '.join(METHODS)}, {EXACT}")
    return method


def steps_of(method: str, steps: int | None) -> int:
    """How often a method calls `progress`."""
    return 1 if method == EXACT else len(METHODS[method][1]) - 1 if steps is None else steps


def operator_of(task: str, shape: tuple[int, ...], generator: torch.Generator) -> Operator:
    """The operator of a task, for pictures of one shape."""
    if task == "inpaint":
        return Inpainting.random(shape, 0.5, generator=generator)
    side = min(_KERNEL, *shape[1:])
    kernel = gaussian_kernel(side - (side + 1) % 2, _WIDTH)
    return Blur(kernel, shape) if task == "deblur" else SuperResolution(_FACTOR, kernel, shape)


def psnr(images: Tensor, truth: Tensor) -> float:
    """10 log10(4 / mean square error) of each picture [n, C, H, W] in model space, averaged over them, in dB."""
    values = _metrics().peak_signal_noise_ratio(images, truth, data_range=RANGE, reduction="none", dim=(1, 2, 3))
    return float(values.mean())


def ssim(images: Tensor, truth: Tensor) -> float:
    """Structural similarity with a Gaussian window of width 1.5 (Wang et al. 2004), averaged over the pictures."""
    return float(_metrics().structural_similarity_index_measure(images, truth, data_range=RANGE))


def check_available() -> None:
    """Raises ImportError without torchmetrics."""
    _metrics()


def _metrics() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what it says of its own imports
            return importlib.import_module("torchmetrics.functional.image")
    except ModuleNotFoundError as error:
        raise ImportError(
            f"PSNR and SSIM need the package {error.name}, which is not installed; {install_hint('restore')}"
        ) from error
    except RuntimeError as error:  # torchvision, which it imports where it is, built for another torch
        raise ImportError(f"PSNR and SSIM need the package torchmetrics, which cannot be imported ({error})") from error
