"""Distilling a teacher into a student, stage by stage."""

import copy
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn

from geodiff.base.denoiser_type import Denoiser
from geodiff.data.digest import digest
from geodiff.learned import checkpoints
from geodiff.learned.distillation.cd import CD
from geodiff.learned.distillation.ct import CT
from geodiff.learned.distillation.dfno import DFNO
from geodiff.learned.distillation.kd import KD
from geodiff.learned.distillation.method import Material, Method
from geodiff.learned.distillation.pd import PD
from geodiff.learned.distillation.settings import Distillation
from geodiff.learned.resumable import Resumable, check_pictures
from geodiff.learned.weights_file import Network

#: Steps between checkpoints and lines of the log.
SAVE_EVERY = 100
_FORMAT = 1  # of checkpoints
_METHODS: dict[str, Callable[[Material], Method]] = {"kd": KD, "dfno": DFNO, "pd": PD, "cd": CD, "ct": CT}

Progress = Callable[[str, int, int], object]


def distill(
    teacher: Denoiser | None,
    data: Tensor,
    out: Path,
    settings: Distillation | None = None,
    *,
    origin: dict[str, object] | None = None,
    progress: Progress = lambda what, done, total: None,
) -> Network:
    """A student of the teacher: see `Distillation.method`. It is what `geodiff.learned.load_network` reads.

    teacher   any denoiser r(x, sigma) [B, C, H, W] with one level per query; None for "ct" alone
    data      [N, C, H, W] as stored: pictures that PD, CD and CT add noise to
    out       folder, made if need be, for weights.safetensors (the moving average), checkpoint.pt, log.jsonl and pairs/
    origin    what the teacher and the data are called, noted with the weights; a store of pairs belongs to it
    progress  called as progress("pairs" or "training", done, total)

    Goes on from what is in `out`. Raises ValueError for other settings than that was made with, DataError for damage.
    """
    data = check_pictures(data)
    settings = settings or Distillation()
    if teacher is None and settings.method != "ct":
        raise ValueError(f"teacher: expected a denoiser for {settings.method}, found None; allowed None for ct")
    out.mkdir(parents=True, exist_ok=True)
    origin = {**(origin or {}), "N": len(data), "digest": digest(data)}
    run = _Run(Material(teacher, data, out, settings, origin), progress)
    student: Network = run.complete(out, SAVE_EVERY, lambda done, loss: progress("training", done, run.settings.steps))
    return student


class _Run(Resumable):
    """A student that learns by a method, stage by stage, and its losses since the last line of the log."""

    def __init__(self, material: Material, progress: Progress) -> None:
        self.material, self._progress = material, progress
        self.method = _METHODS[material.settings.method](material)
        super().__init__(material.settings, self.method.student)
        self.frozen: nn.Module | None = None
        self._losses: list[float] = []

    @property
    def stage(self) -> tuple[int, int]:
        """Steps done in this stage, and the stage's length."""
        stages, steps = self.settings.stages, self.settings.steps
        stage = self.step * stages // steps
        first, following = -(-stage * steps // stages), -(-(stage + 1) * steps // stages)
        return self.step - first, following - first

    def prepare(self) -> None:
        """What the method asks its teacher beforehand."""
        self.method.prepare(lambda done, total: self._progress("pairs", done, total))

    def advance(self) -> float:
        """One step; at the begin of a stage the average becomes the teacher, and what goes on learning."""
        if self.step and self.stage[0] == 0:
            self.frozen = copy.deepcopy(self.average).requires_grad_(False)
            self.network.load_state_dict(self.average.state_dict())
            self.optimizer = self._new_optimizer()
        self._losses.append(super().advance())
        return self._losses[-1]

    def loss(self, generator: torch.Generator) -> Tensor:
        return self.method.loss(self.network, self.frozen, self.step, generator)

    def record(self) -> dict[str, object]:
        """A line of the log: the mean loss since the last one."""
        mean = sum(self._losses) / len(self._losses)
        self._losses.clear()
        return {"step": self.step, "loss": mean, "seconds": round(self.seconds, 1)}

    def origin(self) -> dict[str, object]:
        """What the weights say of where they come from."""
        settings = {key: value for key, value in asdict(self.settings).items() if key != "method"}
        return {**self.material.origin, "step": self.step, "distill": self.settings.method, **settings}

    def save(self, path: Path) -> None:
        """A checkpoint, whole or not there."""
        state = {
            "settings": asdict(self.settings),
            "origin": json.dumps(self.material.origin, sort_keys=True),
            "student": self.network.state_dict(),
            "frozen": None if self.frozen is None else self.frozen.state_dict(),
            **self.state(),
        }
        checkpoints.save(path, _FORMAT, state)

    def restore(self, path: Path) -> None:
        """Go on from a checkpoint of the same settings, teacher and data."""
        state = checkpoints.load(path, _FORMAT, ("settings", "origin"))
        origin = json.dumps(self.material.origin, sort_keys=True)
        checkpoints.check(
            path,
            {**asdict(self.settings), "teacher or data": origin},
            {**state["settings"], "teacher or data": state["origin"]},
        )
        self.network.load_state_dict(state["student"])
        if state["frozen"] is not None:
            self.frozen = self.method.student().requires_grad_(False)
            self.frozen.load_state_dict(state["frozen"])
        self.take(state)
