"""Times of our backends beside those of the peers, interleaved, each with its error in the same cell."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial

import torch
from torch import Tensor

from geodiff import backends, reference
from geodiff.backends import cpu
from geodiff.denoiser.module import OptimalDenoiser
from geodiff.distributed import job
from geodiff.measure.baselines import BASELINES, COMPILED, Peer, PeerFailed
from geodiff.measure.stopwatch import Denoise, timed
from geodiff.reference.contract import largest_error, largest_norm

#: Queries of a cell whose answers are compared with float64; all of them would take longer than the benchmark.
CHECKED = 8
#: A way that has cost so many seconds in a cell is not run again, however many rounds are asked for.
PATIENCE = 5.0
#: A peer that takes longer than so many seconds for one call is not given more queries in one.
LIMIT = 20.0


@dataclass
class Timing:
    """One way in one cell. error: |r - r64| / max(|r64|, 0.01 max |x_i|), the largest over the checked queries."""

    name: str
    milliseconds: list[float] = field(default_factory=list)
    error: float = float("nan")
    note: str = ""

    @property
    def median(self) -> float:
        """Median time in milliseconds; NaN if it did not run."""
        return statistics.median(self.milliseconds) if self.milliseconds else float("nan")

    def refuse(self, tol: float) -> None:
        """Takes the times from a result that breaks contract 1."""
        if not self.error <= tol:
            self.milliseconds, self.note = [], f"breaks the contract: error {self.error:.1e}"

    @property
    def spread(self) -> float:
        """Half the distance of the quartiles over the median: how far another measurement may well be off."""
        if len(self.milliseconds) < 2:
            return 0.0
        low, _, high = statistics.quantiles(self.milliseconds, n=4, method="inclusive")
        return (high - low) / 2 / self.median


@dataclass
class Cell:
    """One (sigma, B): our backends first, then the peers."""

    sigma: float
    batch: int
    ours: list[Timing]
    peers: list[Timing]

    @property
    def baseline(self) -> Timing | None:
        """The fastest float32 form of plain PyTorch in this cell."""
        ran = [timing for timing in self.peers if timing.name in BASELINES and timing.milliseconds]
        return min(ran, key=lambda timing: timing.median, default=None)

    def ratio(self, timing: Timing) -> float:
        """How many times faster than the baseline; NaN without one."""
        return self.baseline.median / timing.median if self.baseline else float("nan")


def our_variants(names: Sequence[str] | None = None, isas: Sequence[str] | None = None) -> list[tuple[str, str]]:
    """(backend, ISA) to time: every compiled backend here, the CPU one on its best ISA or on those named."""
    wanted = [name for name in (names or backends.NAMES) if backends.is_available(name)]
    if names is None:
        wanted = [name for name in wanted if name != "reference"]
    return [(name, isa) for name in wanted for isa in ((isas or [cpu.isa()]) if name == "cpu" else [""])]


@dataclass(frozen=True)
class Ours:
    """A way of ours: a result that breaks contract 1 at `tol` keeps its error and loses its times."""

    denoise: Denoise
    tol: float = 1e-5


@dataclass
class Bench:
    """Every way timed on the same queries, cell by cell.

    data       [N, *shape] as stored
    denoisers  ours, by name: see `denoisers_for`
    rounds     calls that count, of each way, in turns
    cells      those of this run so far, which tell what is too slow to be tried
    """

    data: Tensor
    denoisers: Mapping[str, Ours]
    peers: Sequence[Peer]
    rounds: int = 7
    seed: int = 0
    cells: list[Cell] = field(default_factory=list)

    def run(self, sigma: float, batch: int) -> Cell:
        """Times all on x = x_i + sigma z, [B, *shape], round after round; the cell is added to `cells`."""
        g = torch.Generator().manual_seed(self.seed)
        chosen = torch.randint(len(self.data), (batch,), generator=g)
        clean = reference.model_space(self.data[chosen], torch.float32)
        x = clean + sigma * torch.randn(clean.shape, generator=g)
        flat = x.flatten(1)
        exact = reference.denoise(x[:CHECKED].double(), self.data, sigma)

        def error(answer: Tensor) -> float:
            return largest_error(answer[:CHECKED], exact, self._largest_norm)

        cell = Cell(sigma, batch, [], [])
        ways: list[tuple[Timing, Callable[[], tuple[Tensor, float]]]] = []
        for name, ours in self.denoisers.items():
            cell.ours.append(Timing(name))
            ways.append((cell.ours[-1], partial(timed(ours.denoise, job.ranks()), x, sigma)))
        for peer in self.peers:
            cell.peers.append(Timing(peer.name, note=peer.reason or _too_slow(peer.name, batch, self.cells)))
            if peer.timed is not None:
                ways.append((cell.peers[-1], partial(peer.timed, flat, sigma)))
        take_turns(ways, self.rounds, error)
        for timing in cell.ours:
            timing.refuse(self.denoisers[timing.name].tol)
        self.cells.append(cell)
        return cell

    @cached_property
    def _largest_norm(self) -> float:
        return largest_norm(self.data)


def take_turns(
    ways: Sequence[tuple[Timing, Callable[[], tuple[Tensor, float]]]], rounds: int, error: Callable[[Tensor], float]
) -> None:
    """Calls all ways in turns, round after round, and writes down their times and the error of their first answer."""
    for turn in range(rounds + 1):  # the first warms up and is checked
        for timing, call in ways:
            if timing.note or sum(timing.milliseconds) > PATIENCE * 1e3:
                continue
            try:
                answer, seconds = call()
            except PeerFailed as failure:  # a peer that cannot do this cell says so in the table
                timing.note = str(failure)
                continue
            if turn == 0:
                timing.error = error(answer)
                if seconds < PATIENCE or timing.name in COMPILED:
                    continue
            timing.milliseconds.append(seconds * 1e3)


def denoisers_for(data: Tensor, variants: Sequence[tuple[str, str]], tols: Sequence[float]) -> dict[str, Ours]:
    """One way per (backend, ISA) and tol over the same data, of which each process of a job takes its rows."""
    made: dict[str, Ours] = {}
    for tol in tols:
        opened: dict[str, OptimalDenoiser] = {}
        for name, isa in variants:
            if name not in opened:
                opened[name] = job.denoiser_over(data, backend=name, tol=tol).prepare()
            denoiser = opened[name]
            label = f"geodiff-{name}" + (f"-{isa}" if isa else "") + (f" tol={tol:g}" if len(tols) > 1 else "")
            made[label] = Ours(_on_isa(denoiser, isa) if isa else denoiser, tol)
    return made


def _too_slow(name: str, batch: int, before: Sequence[Cell]) -> str:
    """Why the named peer is left out of a cell with so many queries; "" if it is not."""
    for cell in before:
        for timing in cell.peers:
            if timing.name == name and cell.batch < batch and timing.median > LIMIT * 1e3:
                return f"left out: {timing.median / 1e3:.0f} s at B = {cell.batch}"
    return ""


def _on_isa(denoiser: OptimalDenoiser, isa: str) -> Denoise:
    def denoise(x: Tensor, sigma: float) -> Tensor:
        with cpu.use_isa(isa):
            return denoiser(x, sigma)

    return denoise
