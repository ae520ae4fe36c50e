"""Times of local denoisers beside plain PyTorch, interleaved, each with the error of its worst pixel."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Self

import torch
from torch import Tensor

from geodiff import reference
from geodiff.local import LocalDenoiser
from geodiff.local.registry import TAKES
from geodiff.measure.benchmark import Cell, Timing, take_turns
from geodiff.measure.local_baselines import known, peers
from geodiff.measure.stopwatch import Clock, timed
from geodiff.reference import local
from geodiff.reference.contract import pixel_errors
from geodiff.reference.forms import Pairs

#: Queries of a cell whose answers are compared with float64, pixel by pixel.
CHECKED = 2


@dataclass(frozen=True)
class Case:
    """What is timed: LocalDenoiser(kind, patch) at sigma with `batch` queries a call; some have no windows."""

    kind: str
    patch: int
    sigma: float
    batch: int


@dataclass
class LocalCell(Cell):
    """One case; ratios are to the fastest form of plain PyTorch in it."""

    kind: str = ""
    patch: int = 0

    @property
    def baseline(self) -> Timing | None:
        """The fastest form of plain PyTorch in this cell."""
        return min((timing for timing in self.peers if timing.milliseconds), key=lambda t: t.median, default=None)


def our_backends(names: Sequence[str] | None = None) -> list[str]:
    """Those to time: the ones named, or the one that serves each case by itself."""
    return list(names or ["auto"])


class LocalBench:
    """Every way timed on the same queries x = x_i + sigma z, case by case.

    data [N, C, H, W] as stored. A result of ours that breaks the contract at a pixel keeps its error and no times.
    """

    def __init__(
        self,
        data: Tensor,
        backends: Sequence[str],
        rounds: int = 7,
        seed: int = 0,
        tol: float = 1e-5,
        clock: Clock = time.perf_counter,
    ) -> None:
        self.data, self.backends, self.rounds, self.seed, self.tol = data, backends, rounds, seed, tol
        self._clock, self._against = clock, known(None)
        self._points = reference.model_space(data, torch.float32).contiguous()
        self._made: tuple[tuple[str, int], dict[str, LocalDenoiser]] = ("", 0), {}  # of the last kind and window
        self._largest = self._points.double().norm(dim=1).amax(0)

    def only(self, names: Sequence[str] | None) -> Self:
        """Itself, for those of `local_baselines.DESCRIPTIONS` that are named alone; None: for all."""
        self._against = known(names)
        return self

    def run(self, case: Case) -> LocalCell:
        """Times all, round after round."""
        g = torch.Generator().manual_seed(self.seed)
        chosen = torch.randint(len(self.data), (case.batch,), generator=g)
        clean = self._points[chosen]
        x = clean + case.sigma * torch.randn(clean.shape, generator=g)
        ours = {name: self._denoiser(case, name) for name in self.backends}
        form = next(iter(ours.values())).form(case.sigma)
        # The matrix in float64 once, not for every tile of the data anew.
        right = replace(form, matrix=form.matrix.double()) if isinstance(form, Pairs) else form
        exact = local.posteriors(x[:CHECKED].double(), self.data, case.sigma, right).mean

        def error(answer: Tensor) -> float:
            return float(pixel_errors(answer[:CHECKED], exact, self._largest).amax())

        cell = LocalCell(case.sigma, case.batch, [], [], kind=case.kind, patch=case.patch)
        ways: list[tuple[Timing, Callable[[], tuple[Tensor, float]]]] = []
        for name, denoiser in ours.items():
            denoiser(x[:1], case.sigma)  # which makes what it keeps for the level, as `form` has for the peers
            cell.ours.append(Timing(f"geodiff-{name}-{case.kind}-{case.patch}"))
            ways.append((cell.ours[-1], partial(timed(denoiser, clock=self._clock), x, case.sigma)))
        for name, peer in peers(form).items():
            if name not in self._against:
                continue
            cell.peers.append(Timing(name))
            over_points = timed(partial(peer, self._points), clock=self._clock)
            ways.append((cell.peers[-1], partial(over_points, x, case.sigma)))
        take_turns(ways, self.rounds, error)
        for timing in cell.ours:
            timing.refuse(self.tol)
        return cell

    def _denoiser(self, case: Case, backend: str) -> LocalDenoiser:
        """Kept while kind and window stay the same: PCA locality looks for eigenvectors of the data, for all levels."""
        if self._made[0] != (case.kind, case.patch):
            self._made = (case.kind, case.patch), {}
        made = self._made[1]
        if backend not in made:
            patch = case.patch if "patch" in TAKES.get(case.kind, ()) else None
            made[backend] = LocalDenoiser(self.data, kind=case.kind, patch=patch, backend=backend, tol=self.tol)
        return made[backend]
