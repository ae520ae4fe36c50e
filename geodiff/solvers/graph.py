"""A whole trajectory as one CUDA graph: recorded the second time it is asked for, launched at once from then on.

A step on a small batch is a dozen kernels of microseconds each; launched one by one, the host is what takes the time.
The first call runs step by step: it warms up, and most trajectories are wanted once. A denoiser keeps one recording.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeGuard
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from geodiff.backends.combination import Term
from geodiff.denoiser.module import OptimalDenoiser
from geodiff.denoiser.recording import recording_key, unchecked
from geodiff.solvers.evaluation import Evaluator
from geodiff.solvers.loop import Places

#: Takes all steps: run(evaluate, states, outputs), places as `Walk` has them, states[0] given, the rest written.
Run = Callable[[Evaluator, Tensor, Tensor], None]


class Replay(NamedTuple):
    """What a recorded trajectory gave: states and outputs as `Walk` has them, evaluations of r."""

    states: Tensor
    outputs: Tensor
    evaluations: int


class _Recorded(NamedTuple):
    launch: Callable[[], None]
    states: Tensor
    outputs: Tensor
    evaluations: int


class _Kept(NamedTuple):
    """key: what the recording holds for; recorded: None before the second call, and for good where recording failed."""

    key: object
    recorded: _Recorded | None
    failed: bool


_kept: "WeakKeyDictionary[OptimalDenoiser, _Kept]" = WeakKeyDictionary()


def replay(
    denoiser: object, noise: Tensor, levels: tuple[float, ...], solver: object, places: Places, run: Run
) -> Replay | None:
    """The trajectory of `run` from `noise` as one launch, or None where the caller has to take the steps itself.

    That is so the first time, for a denoiser that is not the optimal one or whose backend waits for the device, for
    noise that is not where the data are, where recording fails, and where a result is not finite: step by step, the
    caller finds out where. `solver` and `levels` must name all that `run` depends on.
    """
    if not is_plain(denoiser) or not _possible(denoiser, noise):
        return None
    recordable = recording_key(denoiser, len(noise))
    if recordable is None:
        return None
    key = (recordable, solver, levels, places, tuple(noise.shape), noise.dtype, noise.device)
    kept = _kept.get(denoiser)
    if kept is None or kept.key != key:
        _kept[denoiser] = _Kept(key, None, failed=False)
        return None
    recorded = kept.recorded
    if recorded is None and not kept.failed:
        recorded = _record(denoiser, noise, places, run)
        _kept[denoiser] = _Kept(key, recorded, failed=recorded is None)
    if recorded is None:
        return None
    recorded.states[0].copy_(noise)
    recorded.launch()
    if not (recorded.states.isfinite().all() and recorded.outputs.isfinite().all()):
        return None
    return Replay(recorded.states.clone(), recorded.outputs.clone(), recorded.evaluations)


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
        and not (noise.is_cuda and torch.cuda.is_current_stream_capturing())
    )


def _record(denoiser: OptimalDenoiser, noise: Tensor, places: Places, run: Run) -> _Recorded | None:
    evaluate = _Unchecked(denoiser)
    states, outputs = noise.new_empty(places.states, *noise.shape), noise.new_empty(places.outputs, *noise.shape)
    states[0].copy_(noise)
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
        level = torch.tensor(sigma, dtype=x.dtype).item()
        levels = torch.full((len(x),), level, dtype=torch.float64, device=x.device)
        return unchecked(self.denoiser, x, levels, gain, terms, torch.empty_like(x) if out is None else out)


def _capture(work: Callable[[], None], device: torch.device) -> Callable[[], None]:
    # A graph is recorded from, and launched on, a stream of the current device: make it the data's.
    with torch.cuda.device(device):
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            work()

    def launch() -> None:
        with torch.cuda.device(device):
            graph.replay()

    return launch
