"""The loop that distils: it can be stopped at any time and goes on as if it had not been.

Everything random in a step comes from (seed, step) alone, as in `geodiff.learned.training`.
"""

import copy
import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from geodiff.base.arguments import check_data
from geodiff.base.finite import finite
from geodiff.data.digest import digest
from geodiff.learned import checkpoints, weights_file
from geodiff.learned.distillation.cd import CD
from geodiff.learned.distillation.ct import CT
from geodiff.learned.distillation.dfno import DFNO
from geodiff.learned.distillation.kd import KD
from geodiff.learned.distillation.method import Material, Method, Teacher
from geodiff.learned.distillation.pd import PD
from geodiff.learned.distillation.settings import Distillation
from geodiff.learned.progress import cosine_rate, lines_until, write_log
from geodiff.learned.weights_file import Network

#: Steps between checkpoints and lines of the log.
SAVE_EVERY = 100
_FORMAT = 1  # of checkpoints
_METHODS: dict[str, Callable[[Material], Method]] = {"kd": KD, "dfno": DFNO, "pd": PD, "cd": CD, "ct": CT}

Progress = Callable[[str, int, int], object]


def distill(
    teacher: Teacher | None,
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
    data = check_data(data, dtypes=(torch.uint8, torch.float16, torch.bfloat16, torch.float32))
    if data.ndim != 4:
        raise ValueError(f"data: expected pictures [N, C, H, W], found shape {list(data.shape)}; allowed 4 dimensions")
    settings = settings or Distillation()
    if teacher is None and settings.method != "ct":
        raise ValueError(f"teacher: expected a denoiser for {settings.method}, found None; allowed None for ct")
    out.mkdir(parents=True, exist_ok=True)
    origin = {**(origin or {}), "N": len(data), "digest": digest(data)}
    run = _Run(Material(teacher, data, out, settings, origin))
    checkpoint, log = out / "checkpoint.pt", out / "log.jsonl"
    lines = ""
    if checkpoint.is_file():
        run.restore(checkpoint)
        lines = lines_until(log, run.step)
    write_log(log, lines)
    if run.step < settings.steps:
        run.method.prepare(lambda done, total: progress("pairs", done, total))
    losses: list[float] = []
    while run.step < settings.steps:
        losses.append(run.advance())
        progress("training", run.step, settings.steps)
        if run.step % SAVE_EVERY == 0 or run.step == settings.steps:
            record = {"step": run.step, "loss": sum(losses) / len(losses), "seconds": round(run.seconds, 1)}
            losses.clear()
            lines += json.dumps(finite(record)) + "\n"
            write_log(log, lines)
            run.save(checkpoint)
            weights_file.save(run.average, out / weights_file.FILE_NAME, run.origin())
    run.average.training_metadata = run.origin()
    return run.average.eval().requires_grad_(False)


class _Run:
    """Everything that changes while distilling, and how one step changes it."""

    def __init__(self, material: Material) -> None:
        self.material, self.settings = material, material.settings
        self.method = _METHODS[self.settings.method](material)
        self.step, self.seconds = 0, 0.0
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.settings.seed)
            self.student: Any = self.method.student()
        self.average: Any = copy.deepcopy(self.student)
        self.frozen: nn.Module | None = None
        self.optimizer = self._new_optimizer()

    def _new_optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.student.parameters(), lr=self.settings.learning_rate, betas=(0.9, 0.99))

    @property
    def _stage(self) -> tuple[int, int]:
        """Steps done in this stage, and the stage's length."""
        stages, steps = self.settings.stages, self.settings.steps
        stage = self.step * stages // steps
        first, following = -(-stage * steps // stages), -(-(stage + 1) * steps // stages)
        return self.step - first, following - first

    def advance(self) -> float:
        """One step; returns its loss."""
        began = time.perf_counter()
        done, length = self._stage
        if done == 0 and self.step:  # the average becomes the teacher, and what goes on learning
            self.frozen = copy.deepcopy(self.average).requires_grad_(False)
            self.student.load_state_dict(self.average.state_dict())
            self.optimizer = self._new_optimizer()
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.learning_rate * cosine_rate(done, length)
        generator = torch.Generator().manual_seed(self.settings.seed * 1_000_003 + self.step)
        loss = self.method.loss(self.student, self.frozen, self.step, generator)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.student.parameters(), 1.0)
        self.optimizer.step()
        self.step += 1
        self._follow(done + 1)
        self.seconds += time.perf_counter() - began
        return float(loss.detach())

    @torch.no_grad()
    def _follow(self, done: int) -> None:
        """The moving average; shorter at first, so that it forgets the start."""
        decay = min(self.settings.ema, (1 + done) / (10 + done))
        for kept, new in zip(self.average.parameters(), self.student.parameters(), strict=True):
            kept.lerp_(new, 1 - decay)

    def origin(self) -> dict[str, object]:
        """What the weights say of where they come from."""
        settings = {key: value for key, value in asdict(self.settings).items() if key != "method"}
        return {**self.material.origin, "step": self.step, "distill": self.settings.method, **settings}

    def save(self, path: Path) -> None:
        """A checkpoint, whole or not there."""
        state = {
            "settings": asdict(self.settings),
            "origin": json.dumps(self.material.origin, sort_keys=True),
            "step": self.step,
            "seconds": self.seconds,
            "student": self.student.state_dict(),
            "average": self.average.state_dict(),
            "frozen": None if self.frozen is None else self.frozen.state_dict(),
            "optimizer": self.optimizer.state_dict(),
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
        self.step, self.seconds = state["step"], state["seconds"]
        self.student.load_state_dict(state["student"])
        self.average.load_state_dict(state["average"])
        if state["frozen"] is not None:
            self.frozen = self.method.student().requires_grad_(False)
            self.frozen.load_state_dict(state["frozen"])
        self.optimizer.load_state_dict(state["optimizer"])
