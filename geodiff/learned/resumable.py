"""A training run that can be stopped at any time and goes on as if it had not been.

Everything random in a step comes from (seed, step) alone, so a run that was stopped and resumed ends with the weights
of one that was not.
"""

import copy
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from geodiff.base.arguments import check_data
from geodiff.base.dtypes import STORED
from geodiff.base.finite import finite
from geodiff.learned import weights_file
from geodiff.learned.progress import cosine_rate, lines_until, write_log


def check_pictures(data: object) -> Tensor:
    """data as `check_data` takes it, once it is known to be pictures [N, C, H, W]; ValueError for other shapes."""
    data = check_data(data, dtypes=STORED)
    if data.ndim != 4:
        raise ValueError(f"data: expected pictures [N, C, H, W], found shape {list(data.shape)}; allowed 4 dimensions")
    return data


class Resumable(ABC):
    """What changes while training: a network that learns, the moving average of its weights, the optimizer.

    settings have seed, learning_rate (the highest) and ema (the average's decay); `network` is made with that seed.
    """

    def __init__(self, settings: Any, network: Callable[[], Any]) -> None:
        self.settings = settings
        self.step, self.seconds = 0, 0.0
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            self.network = network()
        self.average = copy.deepcopy(self.network)
        self.optimizer = self._new_optimizer()

    def _new_optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.network.parameters(), lr=self.settings.learning_rate, betas=(0.9, 0.99))

    @abstractmethod
    def loss(self, generator: torch.Generator) -> Tensor:
        """What this step is to lessen, a number that autograd follows."""

    @abstractmethod
    def record(self) -> dict[str, object]:
        """A line of the log, of what has been since the last one."""

    @abstractmethod
    def origin(self) -> dict[str, object]:
        """What the weights say of where they come from."""

    @abstractmethod
    def save(self, path: Path) -> None:
        """A checkpoint, whole or not there."""

    @abstractmethod
    def restore(self, path: Path) -> None:
        """Go on from a checkpoint of the same settings and data."""

    @property
    def stage(self) -> tuple[int, int]:
        """Steps done of those over which the learning rate rises and falls once, and how many they are."""
        return self.step, self.settings.steps

    def prepare(self) -> None:  # noqa: B027  as a rule there is nothing to do
        """What has to be there before the first of the steps that are left."""

    def advance(self) -> float:
        """One step of Adam down a clipped gradient; returns the loss before it."""
        began = time.perf_counter()
        done, length = self.stage
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.learning_rate * cosine_rate(done, length)
        loss = self.loss(torch.Generator().manual_seed(self.settings.seed * 1_000_003 + self.step))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        self.step += 1
        self._follow(done + 1)
        self.seconds += time.perf_counter() - began
        return float(loss.detach())

    @torch.no_grad()
    def _follow(self, done: int) -> None:
        """The moving average; shorter at first, so that it forgets the start."""
        decay = min(self.settings.ema, (1 + done) / (10 + done))
        for kept, new in zip(self.average.parameters(), self.network.parameters(), strict=True):
            kept.lerp_(new, 1 - decay)

    def state(self) -> dict[str, object]:
        """What every checkpoint holds beside the network."""
        return {
            "step": self.step,
            "seconds": self.seconds,
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def take(self, state: dict[str, Any]) -> None:
        """Becomes what `state` told."""
        self.step, self.seconds = state["step"], state["seconds"]
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])

    def complete(self, out: Path, every: int, progress: Callable[[int, float], object]) -> Any:
        """Takes the steps that are left, from out/checkpoint.pt if there is one; returns the averaged network.

        Writes weights.safetensors (the moving average), checkpoint.pt and log.jsonl in `out`, every so many steps.
        progress: called as progress(steps done, loss of the step) after each step
        """
        checkpoint, log = out / "checkpoint.pt", out / "log.jsonl"
        lines, steps = "", self.settings.steps
        if checkpoint.is_file():
            self.restore(checkpoint)
            lines = lines_until(log, self.step)
        write_log(log, lines)  # drops the lines of steps that were lost
        if self.step < steps:
            self.prepare()
        while self.step < steps:
            loss = self.advance()
            progress(self.step, loss)
            if self.step % every == 0 or self.step == steps:
                lines += json.dumps(finite(self.record())) + "\n"
                write_log(log, lines)
                self.save(checkpoint)
                weights_file.save(self.average, out / weights_file.FILE_NAME, self.origin())
        self.average.training_metadata = self.origin()
        return self.average.eval().requires_grad_(False)
