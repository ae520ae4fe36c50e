"""Training a learned denoiser, or the velocity of a learned flow."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from geodiff.base.arguments import SEED_MAX, check_integer, check_number
from geodiff.data.digest import digest
from geodiff.data.holdout import split
from geodiff.learned import checkpoints
from geodiff.learned.denoiser import LearnedDenoiser
from geodiff.learned.flow import LearnedFlow
from geodiff.learned.network import UNetConfig
from geodiff.learned.objectives import TARGETS, Objective
from geodiff.learned.resumable import Resumable, check_pictures

#: Loss is logged apart for the levels below, between and above these, where a denoiser does different things.
BANDS = (0.3, 10.0)
_FORMAT = 2  # of checkpoints: changes whenever what they hold does


@dataclass(frozen=True)
class Training:
    """How to train; the defaults, in bfloat16, made the shipped weights. Raises TypeError or ValueError.

    steps          of Adam with a rate that falls to 0 along half a cosine, after a warm-up of 2% of the steps
    batch          pictures per step
    width, patch   size of the network: see `UNetConfig`
    learning_rate  the highest
    ema            decay of the moving average of the weights, which is what is saved
    wide           share of noise levels drawn evenly in ln sigma over 0.002 .. 100, of times in 0 .. 1: `noise_levels`
    seed           of weights, pictures and noise
    bfloat16       products of the network in bfloat16: faster where the processor has it, slower where not
    flow           a velocity of flow matching (`LearnedFlow`) instead of a denoiser
    target         what the network is drawn to: "data", the point itself (or n - x_0); "expected", r* or v* at the same
                   x over all data, which is its mean and makes for gradients of less variance; "optimal", r* or v*
                   without the point that x was made from: what can be known of it from the others
    holdout        points that the network never sees: those of `geodiff.data.split`
    """

    steps: int = 6000
    batch: int = 64
    width: int = 48
    patch: int = 2
    learning_rate: float = 2e-3
    ema: float = 0.999
    wide: float = 0.5
    seed: int = 0
    bfloat16: bool = False
    flow: bool = False
    target: str = "data"
    holdout: int = 0

    def __post_init__(self) -> None:
        check_integer(self.steps, "steps", 1)
        check_integer(self.batch, "batch", 1)
        check_integer(self.seed, "seed", 0, SEED_MAX)
        if self.target not in TARGETS:
            raise ValueError(f"target: found {self.target!r}; allowed {', '.join(map(repr, TARGETS))}")
        for name in ("learning_rate", "ema", "wide"):
            check_number(getattr(self, name), name, 0.0, 1.0, ends="[]")


def train(
    data: Tensor,
    out: Path,
    training: Training | None = None,
    *,
    name: str = "",
    save_every: int = 250,
    progress: Callable[[int, float], object] = lambda step, loss: None,
) -> LearnedDenoiser | LearnedFlow:
    """min E weight(sigma) |r(x_i + sigma z; sigma) - x_i|^2 over i, z and sigma (Karras et al., 2206.00364, eq. 2).

    With `flow`, min E |v(x_t, t) - (n - x_0)|^2 over x_0, n and t (Lipman et al., 2210.02747). See `Training.target`.

    data        [N, C, H, W]; uint8 u means u/127.5 - 1
    out         folder, made if need be, for weights.safetensors (the moving average), checkpoint.pt and log.jsonl
    name        of the data, noted with the weights
    save_every  steps between checkpoints and lines of the log
    progress    called as progress(steps done, loss of the step) after each step

    Goes on from out/checkpoint.pt if there is one. Returns the network with the averaged weights.
    Raises ValueError for data that are no pictures or a checkpoint of other settings, DataError for a damaged one.
    """
    data = check_pictures(data)
    training = training or Training()
    data = data[split(len(data), training.holdout).kept] if training.holdout else data
    save_every = check_integer(save_every, "save_every", 1)
    out.mkdir(parents=True, exist_ok=True)
    return _Run(data, training, name).complete(out, save_every, progress)


class _Run(Resumable):
    """A denoiser or a velocity that learns, and its losses since the last line of the log."""

    def __init__(self, data: Tensor, training: Training, name: str) -> None:
        self.data, self.training, self.name = data, training, name
        config = UNetConfig(data.shape[1], training.width, training.patch)
        kind = LearnedFlow if training.flow else LearnedDenoiser
        super().__init__(training, lambda: kind(tuple(data.shape[1:]), config))
        self.objective = Objective(data, training.flow, training.target, training.wide)
        self._clear()

    @cached_property
    def data_digest(self) -> str:
        """What a checkpoint knows the data by."""
        return digest(self.data)

    def _clear(self) -> None:
        self._sums = torch.zeros(len(BANDS) + 1, dtype=torch.float64)
        self._counts = torch.zeros(len(BANDS) + 1, dtype=torch.float64)

    def loss(self, generator: torch.Generator) -> Tensor:
        """The weighted squared error per pixel, which is 1 for an answer of c_skip x."""
        lesson = self.objective.draw(self.training.batch, generator)
        with _precision(self.training.bfloat16):
            found = lesson.answer(self.network)
        losses = lesson.weight * (found - lesson.target).square().mean((1, 2, 3))  # [batch]
        band = torch.bucketize(lesson.sigma, torch.tensor(BANDS))
        self._sums.index_add_(0, band, losses.detach().double())
        self._counts.index_add_(0, band, torch.ones_like(losses, dtype=torch.float64))
        return losses.mean()

    def record(self) -> dict[str, object]:
        """A line of the log: the mean losses since the last one, over all levels and in each band."""
        means = (self._sums / self._counts).tolist()
        low, high = BANDS
        names = (f"sigma<{low:g}", f"{low:g}<=sigma<{high:g}", f"sigma>={high:g}")
        line: dict[str, object] = {
            "step": self.step,
            "loss": float(self._sums.sum() / self._counts.sum()),
            "loss_by_sigma": dict(zip(names, means, strict=True)),
            "seconds": round(self.seconds, 1),
        }
        self._clear()
        return line

    def origin(self) -> dict[str, object]:
        """What the weights say of where they come from."""
        return {"data": self.name, "N": len(self.data), "step": self.step, **asdict(self.training)}

    def save(self, path: Path) -> None:
        """A checkpoint, whole or not there."""
        state = {
            "training": asdict(self.training),
            "data": self.data_digest,
            "shape": list(self.data.shape),
            "denoiser": self.network.state_dict(),
            **self.state(),
        }
        checkpoints.save(path, _FORMAT, state)

    def restore(self, path: Path) -> None:
        """Go on from a checkpoint of the same settings and data."""
        state = checkpoints.load(path, _FORMAT, ("training", "shape"))
        default = asdict(Training())  # of settings that are newer than the checkpoint
        checkpoints.check(path, asdict(self.training), {**default, **state["training"]})
        shape = state["shape"]
        if shape != list(self.data.shape):
            raise ValueError(f"data: expected shape {shape} as in {path}, found {list(self.data.shape)}")
        if state["data"] != self.data_digest:
            raise ValueError(
                f"data: expected those that {path} was made with (sha256 {state['data'][:12]}...), found others "
                f"({self.data_digest[:12]}...); allowed the same data to go on, or another folder to start anew"
            )
        self.network.load_state_dict(state["denoiser"])
        self.take(state)


def _precision(bfloat16: bool) -> AbstractContextManager[object]:
    return torch.autocast("cpu", torch.bfloat16) if bfloat16 else nullcontext()
