"""How far a learned velocity of flow matching is from the optimal one, and what becomes of samples if it takes over."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from geodiff.base.answers import check_answer
from geodiff.base.arguments import check_integer, check_query_shape, check_reals, check_tensor
from geodiff.base.denoiser_type import Denoiser
from geodiff.base.dtypes import FLOATING
from geodiff.denoiser.module import OptimalDenoiser
from geodiff.denoiser.nearest import nearest_two
from geodiff.paths import LINEAR, Path, check_path
from geodiff.solvers import sample

__all__ = ["Denoiser", "FlowDeviation", "Hybrid", "Velocity", "along_path", "along_trajectory", "hybrid"]

Velocity = Callable[..., Tensor]


@dataclass(frozen=True, eq=False)
class FlowDeviation:
    """At each time and for each query, v the network's and v* the optimal velocity at the same x_t.

    times     [S]
    relative  [S, B] delta = |v - v*| / |v*|; average over B, not a ratio of averages (Bertrand et al., 2506.03719)
    cosine    [S, B] of the angle between v and v*
    target    [S, B] of the angle between v* and d x_t / dt, what a network is trained on, n - x_0 on the linear path;
              near 1 where one point has all the weight. NaN along trajectories, which have no such target
    """

    times: Tensor
    relative: Tensor
    cosine: Tensor
    target: Tensor


@torch.no_grad()
def along_path(
    network: Velocity,
    optimal: OptimalDenoiser,
    points: Tensor,
    noise: Tensor,
    times: Tensor | Sequence[float],
    *,
    path: Path = LINEAR,
) -> FlowDeviation:
    """delta, and cosines, at x_t = alpha x_0 + sigma n for pairs of points and noises.

    network        v(x, t), [B, *shape] for x [B, *shape] and t a number, in the path's convention of time
    points, noise  [B, *shape], in model space
    times          [S], where the path has a velocity
    Raises TypeError or ValueError that names the argument.
    """
    path, levels = check_path(path), check_reals(times, "times", "[S]", at_least=1)
    points, noise = (
        check_query_shape(given, optimal.shape, dtypes=FLOATING, name=name)
        for name, given in (("points", points), ("noise", noise))
    )
    if len(noise) != len(points):
        raise ValueError(
            f"noise: expected a noise for each of B = {len(points)} points, found {len(noise)}; allowed as many"
        )
    relative, cosine, target = [], [], []
    for t in levels.tolist():
        x = path.mix(points, noise, t)
        best, off, angle = _compared(network, optimal, x, t, path)
        scales = path.at(t)
        change = float(scales.d_alpha) * points.double() + float(scales.d_sigma) * noise.double()
        relative.append(off)
        cosine.append(angle)
        target.append(_cosine(change, best))
    return FlowDeviation(levels, torch.stack(relative), torch.stack(cosine), torch.stack(target))


@torch.no_grad()
def along_trajectory(
    network: Velocity,
    optimal: OptimalDenoiser,
    states: Tensor,
    times: Tensor | Sequence[float],
    *,
    path: Path = LINEAR,
) -> FlowDeviation:
    """The same at the states [S, B, *shape] of a trajectory, x_t at times [S], such as those of the network's own."""
    levels = check_reals(times, "times", "[S]", at_least=1)
    states = check_tensor(states, "states", FLOATING)
    if states.shape[2:] != tuple(optimal.shape) or states.ndim != 2 + len(optimal.shape):
        sizes = ", ".join(str(size) for size in optimal.shape)
        raise ValueError(
            f"states: expected shape [S, B, {sizes}], found {list(states.shape)}; allowed the states of a Trajectory"
        )
    if len(states) != len(levels):
        raise ValueError(
            f"times: expected one for each of S = {len(states)} states, found {len(levels)}; allowed as many"
        )
    relative, cosine = [], []
    for t, x in zip(levels.tolist(), states, strict=True):
        _, off, angle = _compared(network, optimal, x, t, path)
        relative.append(off)
        cosine.append(angle)
    none = torch.full_like(torch.stack(relative), torch.nan)
    return FlowDeviation(levels, torch.stack(relative), torch.stack(cosine), none)


@dataclass(frozen=True, eq=False)
class Hybrid:
    """Samples of a flow that is optimal until a time tau since the noise, and the network's after it.

    switches   [K]    tau, from 0 (the network alone) to 1 (the optimal flow alone)
    samples    [K, B, *shape]
    distances  [K, B] |sample - nearest data point|, which is 0 for a copy
    nearest    [K, B] int64, which point that is
    """

    switches: Tensor
    samples: Tensor
    distances: Tensor
    nearest: Tensor


@torch.no_grad()
def hybrid(
    network: Denoiser,
    optimal: OptimalDenoiser,
    noise: Tensor,
    switches: Sequence[float],
    *,
    steps: int = 50,
) -> Hybrid:
    """Euler's method in `steps` even times of the linear path from n, with v* up to tau, then v (Bertrand et al., 4.2).

    network   r(x, sigma) of the learned flow: `LearnedFlow`, or `geodiff.adapters.FlowDenoiser` around another
    noise     [B, *shape], x at the time 0
    switches  times tau since the noise, one or more, each within 0 .. 1
    """
    switches = check_reals(switches, "switches", "[K]", at_least=1).tolist()
    steps = check_integer(steps, "steps", 1)
    bad = [tau for tau in switches if not 0 <= tau <= 1]
    if bad:
        raise ValueError(f"switches: expected times, found {bad[0]:g}; allowed 0 <= tau <= 1")
    times = torch.linspace(1, 0, steps + 1, dtype=torch.float64, device="cpu")
    ends = []
    for tau in switches:
        # In even steps: the optimal velocity is asked at the first round(tau steps) of them.
        cut = int((1 - torch.tensor(tau, dtype=torch.float64, device="cpu")).mul(steps).round())
        asked = _Asked(network, optimal, float(times[steps - cut]) if cut else 0.0)
        ends.append(sample(asked, noise, times, "euler", keep="end", path=LINEAR).states[-1])
    samples = torch.stack(ends)
    found = [nearest_two(optimal, one) for one in samples]
    nearest, distances = (torch.stack([values[:, 0] for values in each]) for each in zip(*found, strict=True))
    return Hybrid(torch.tensor(switches, dtype=torch.float64, device="cpu"), samples, distances, nearest)


class _Asked:
    """r(x, sigma): the optimal one above the level of the time t (1 at the noise), the network's from there on."""

    def __init__(self, network: Denoiser, optimal: OptimalDenoiser, t: float) -> None:
        self._network, self._optimal = network, optimal
        self._level = t / (1 - t) if t < 1 else float("inf")

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        if float(sigma) > self._level * (1 + 1e-6) or self._level == 0:
            return self._optimal(x, sigma)
        return self._network(x, sigma)


def _compared(
    network: Velocity, optimal: OptimalDenoiser, x: Tensor, t: float, path: Path
) -> tuple[Tensor, Tensor, Tensor]:
    """v* in float64, and of the network's v to it: delta [B] and the cosine [B]."""
    # Of another shape it would broadcast into a deviation that is none.
    found = check_answer(network(x, t), x, "network", f"t = {t:g}").double()
    best = optimal.velocity(x, t, path=path).double()
    return best, (found - best).flatten(1).norm(dim=1) / best.flatten(1).norm(dim=1), _cosine(found, best)


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    return torch.nn.functional.cosine_similarity(a.flatten(1), b.flatten(1))
