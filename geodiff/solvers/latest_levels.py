"""The latest levels of trajectories that are on their way, in a file: who was killed in between goes on there."""

import time
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from geodiff.base.files import atomic_path, remove_abandoned
from geodiff.solvers.history import BACK
from geodiff.solvers.loop import Walk

#: Levels are kept at every fourth step: there, evaluations forget what they remember (`go_on`).
STRIDE = 4
#: Seconds from one time that the levels are kept to the next.
EVERY = 10.0


class LatestLevels:
    """A file of the latest levels: x_(s-b)..x_s and r_(s-b)..r_(s-1), [2 b + 1, B, *shape], b = min(s, BACK)."""

    def __init__(self, path: Path) -> None:
        self.path, self._since = path, time.monotonic()

    def read(self, walk: Walk) -> tuple[int, Tensor | None]:
        """s and what the file holds, for that walk; (0, None) where there is none that will do."""
        with suppress(OSError, SafetensorError, ValueError), safe_open(self.path, framework="pt") as archive:
            step, known = int((archive.metadata() or {}).get("step", 0)), archive.get_tensor("levels")
            shape = (2 * min(step, BACK) + 1, *walk.states.shape[1:])
            if 0 < step < len(walk.levels) and step % STRIDE == 0 and known.shape == shape:
                return step, known
        return 0, None

    @staticmethod
    def put(step: int, known: Tensor, walk: Walk) -> None:
        """Brings a walk to x_step, by what `read` found."""
        for place, values in zip(_places(step, walk), known, strict=True):
            place.copy_(values)

    def write(self, step: int, walk: Walk) -> None:
        """Keeps the levels up to x_step, once EVERY seconds, where that is a STRIDE-th."""
        if step % STRIDE or time.monotonic() - self._since < EVERY:
            return
        levels = torch.stack(_places(step, walk))
        with atomic_path(self.path) as path:
            save_file({"levels": levels}, path, {"step": str(step)})
        self._since = time.monotonic()

    def remove(self) -> None:
        """The trajectories are at their end: nothing is left of it, nor of writing it."""
        remove_abandoned(self.path)
        self.path.unlink(missing_ok=True)


def _places(step: int, walk: Walk) -> list[Tensor]:
    """The states before x_step as far back as solvers look, x_step itself, the outputs before it."""
    before = range(step - min(step, BACK), step)
    return [walk.state(k) for k in (*before, step)] + [walk.output(k) for k in before]
