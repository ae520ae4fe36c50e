"""A whole trajectory as one CUDA graph: recorded when it is first asked for, and launched at once from then on.

A step on a small batch is a dozen kernels of microseconds each; launched one by one, the host takes the time. To record
takes as long as to launch them once. A denoiser keeps its latest recordings, so that solvers may take turns.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeGuard
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from geodiff.backends.combination import Term
from geodiff.backends.engine import Engine
from geodiff.base.arguments import captured
from geodiff.denoiser.graph_recording import recordable_engine, unchecked
from geodiff.denoiser.module import OptimalDenoiser
from geodiff.solvers.evaluation import Evaluator
from geodiff.solvers.loop import Places

#: Takes all steps: run(evaluate, states, outputs), places as `Walk` has them, states[0] given, the rest written.
Run = Callable[[Evaluator, Tensor, Tensor], None]

#: Recordings of one denoiser; each holds the states and outputs of its trajectory.
KEPT = 4


class Replay(NamedTuple):
    """What a recorded trajectory gave: states and outputs as `Walk` has them, evaluations of r."""

    states: Tensor
    outputs: Tensor
    evaluations: int


class _Key(NamedTuple):
    """What a recording holds for. `engine` has the addresses that the graph has."""

    engine: Engine
    tol: float
    solver: object
    levels: tuple[float, ...]
    places: Places
    shape: tuple[int, ...]
    dtype: torch.dtype


@dataclass
class _Recorded:
    """A graph and the places it reads and writes, which one call at a time may have."""

    launch: Callable[[], None]
    states: Tensor
    outputs: Tensor
    evaluations: int
    free: torch.cuda.Event | None = None

    def replay(self, noise: Tensor) -> Replay | None:
        """None where a result is not finite."""
        if self.free is not None:  # another stream may still copy the last results
            torch.cuda.current_stream(noise.device).wait_event(self.free)
        self.states[0].copy_(noise)
        self.launch()
        finite = bool(self.states.isfinite().all() and self.outputs.isfinite().all())
        found = Replay(self.states.clone(), self.outputs.clone(), self.evaluations) if finite else None
        if noise.is_cuda:
            self.free = torch.cuda.current_stream(noise.device).record_event()
        return found


@dataclass
class _Recordings:
    """The latest of one denoiser, by what they hold for; None: it could not be recorded."""

    latest: "OrderedDict[_Key, _Recorded | None]" = field(default_factory=OrderedDict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def let_go_of_others(self, rows: Tensor) -> None:
        """Forgets what was recorded for rows elsewhere, before a move, which it keeps alive."""
        for key in [key for key in self.latest if key.engine.rows.data_ptr() != rows.data_ptr()]:
            del self.latest[key]


_recordings: "WeakKeyDictionary[OptimalDenoiser, _Recordings]" = WeakKeyDictionary()


def replay(
    denoiser: object, noise: Tensor, levels: tuple[float, ...], solver: object, places: Places, run: Run
) -> Replay | None:
    """The trajectory of `run` from `noise` as one launch, or None where the caller has to take the steps itself.

    That is so for a denoiser that is not the optimal one or whose backend waits for the device, for noise that is not
    where the data are, where recording fails, and where a result is not finite: step by step, the caller finds out
    where. `solver` and `levels` must name all that `run` depends on.
    """
    if not is_plain(denoiser) or not _possible(denoiser, noise):
        return None
    engine = recordable_engine(denoiser, len(noise))
    if engine is None:
        return None
    key = _Key(engine, denoiser.tol, solver, levels, places, tuple(noise.shape), noise.dtype)
    mine = _recordings.setdefault(denoiser, _Recordings())
    with mine.lock:
        mine.let_go_of_others(engine.rows)
        if key not in mine.latest:
            mine.latest[key] = _record(denoiser, noise, levels[0], places, run)
        mine.latest.move_to_end(key)
        while len(mine.latest) > KEPT:
            mine.latest.popitem(last=False)
        recorded = mine.latest[key]
        return None if recorded is None else recorded.replay(noise)


def is_plain(denoiser: object) -> TypeGuard[OptimalDenoiser]:
    """Whether calling it runs the optimal denoiser and nothing else: no subclass, no hooks, no forward of its own."""
    return (
        type(denoiser) is OptimalDenoiser
        and "forward" not in vars(denoiser)
        and not denoiser._forward_hooks
        and not denoiser._forward_pre_hooks
    )


def _possible(denoiser: OptimalDenoiser, noise: Tensor) -> bool:
    return (
        noise.device == denoiser.data.device
        and noise.shape[1:] == denoiser.shape
        and len(noise) > 0
        and not captured(noise)
    )


def _record(denoiser: OptimalDenoiser, noise: Tensor, first: float, places: Places, run: Run) -> _Recorded | None:
    evaluate = _Unchecked(denoiser)
    states, outputs = noise.new_empty(places.states, *noise.shape), noise.new_empty(places.outputs, *noise.shape)
    states[0].copy_(noise)
    evaluate(noise, first)  # whatever kernels do once: compile, load, ask the machine
    evaluate.count = 0
    try:
        launch = _capture(lambda: run(evaluate, states, outputs), noise.device)
    except RuntimeError:  # a step that copies from the host, or waits for the device
        return None
    return _Recorded(launch, states, outputs, evaluate.count)


class _Unchecked(Evaluator):
    """The optimal denoiser as recorded steps call it: nothing is checked, since that waits for the device."""

    def __init__(self, denoiser: OptimalDenoiser) -> None:
        self.denoiser = denoiser

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        return self.combine(x, sigma, 1.0, (), None)

    def combine(self, x: Tensor, sigma: float, gain: float, terms: Sequence[Term], out: Tensor | None) -> Tensor:
        self.count += 1
        # In the precision of x, as steps that are not recorded have it, and filled on the device: a level copied from
        # the host could not be recorded.
        level = torch.tensor(sigma, dtype=x.dtype, device="cpu").item()
        levels = torch.full((len(x),), level, dtype=torch.float64, device=x.device)
        return unchecked(self.denoiser, x, levels, gain, terms, torch.empty_like(x) if out is None else out)


def _capture(work: Callable[[], None], device: torch.device) -> Callable[[], None]:
    # A graph is recorded from, and launched on, a stream of the current device: make it the data's.
    with torch.cuda.device(device):
        graph = torch.cuda.CUDAGraph()
        # What other threads do meanwhile (a loader that pins memory, another model) does not end it.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            work()

    def launch() -> None:
        with torch.cuda.device(device):
            graph.replay()

    return launch
