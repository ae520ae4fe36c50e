"""Observation 5, ODE-Jump and memorisation: visual quality along both trajectories, in figures."""

import torch
from torch import Tensor

from geodiff.analysis.quality import frechet_distance, kernel_distance, nearest
from geodiff.output import pictures
from geodiff.reference.formula import model_space
from geodiff.report.context import Context
from geodiff.report.figures import BLUE, GREEN, ORANGE, axes, band, drawn, image_rows, line, numbers
from geodiff.report.finding import Finding, Picture
from geodiff.solvers.trajectory import Trajectory

_SHOWN = 8
_CLOSE = 1.5  # within this factor of the final distance counts as arrived
_AS_GOOD = 1.1  # and within this factor as the same


def denoised_first(context: Context) -> Finding:
    """Observation 5: Fréchet distance to the data of x and of r at every level, for each denoiser there is."""
    held, sentences, figures, shown_pictures = True, [], {}, []
    for name, trajectory in _trajectories(context):
        at_x, at_r = _distances(context, trajectory)
        levels = trajectory.sigmas[:-1]
        arrived_x, arrived_r = _arrival(levels, at_x), _arrival(levels, at_r)
        underway = levels > arrived_x
        below = float((at_r < at_x)[underway].double().mean())
        held = held and below == 1 and arrived_r > arrived_x
        sentences.append(
            f"{name.capitalize()}: within {_CLOSE:g} times the final distance r arrives at σ = {arrived_r:.3g}, "
            f"x at σ = {arrived_x:.3g}; until then r is the nearer one at {below:.0%} of the levels. "
        )
        figure, made = axes("σ", "Fréchet distance to the data", noise=True)
        line(made, levels, at_x, "x, sampling", BLUE)
        line(made, levels, at_r, "r, denoising", ORANGE)
        made.set_yscale("log")
        shown_pictures.append(drawn(figure, f"{name.capitalize()}: visual quality along both trajectories."))
        figures[name] = {
            "sigma": numbers(levels),
            "frechet_x": numbers(at_x),
            "frechet_r": numbers(at_r),
            "share_r_nearer_until_x_arrives": below,
            "arrival_x": arrived_x,
            "arrival_r": arrived_r,
        }
    k = context.features.components.shape[1]
    return Finding(
        key="observation-5",
        kind="Observation",
        title="The denoising trajectory converges faster in visual quality",
        claim="At every noise level the denoised point looks better than the noisy point, long before sampling ends, "
        "for the optimal denoiser as well.",
        measure=f"Fréchet distance between {context.num} points of a trajectory and the data, over the first {k} "
        "principal components of the data (squared units of the data; biased upwards alike for all levels). Held if "
        f"for each denoiser r stays within {_CLOSE:g} times its final distance from a higher σ on than x does, and is "
        "the nearer one at every level until x arrives. Optimal denoiser by 20 Heun steps, network by 20 Euler steps.",
        held=held,
        verdict="".join(sentences).strip(),
        figures=figures,
        pictures=shown_pictures,
    )


def ode_jump(context: Context) -> Finding:
    """Leaving the trajectory at σ_j for r(x_j; σ_j), against stopping at x_j: distances to the data and to the end."""
    if context.learned is not None:
        name, trajectory = "the network", context.deviation.learned
    else:
        name, trajectory = "the optimal denoiser", context.euler_trajectory
    features = context.features
    data = features(_sample_of_data(context))
    at_x, at_r = (distances.tolist() for distances in _distances(context, trajectory))
    end = trajectory.denoised[-1]
    last = len(at_r) - 1
    best = next(step for step, distance in enumerate(at_r) if distance <= _AS_GOOD * at_r[last])
    steps = sorted({best, *(round(step) for step in torch.linspace(0, last, 8).tolist())})
    saved = 1 - (best + 1) / (last + 1)
    rows, records = [["σ_j", "evaluations", "Fréchet x_j", "Fréchet r_j", "kernel r_j", "‖r_j − end‖"]], []
    for step in steps:
        r = trajectory.denoised[step]
        record = {
            "sigma": float(trajectory.sigmas[step]),
            "evaluations": step + 1,
            "frechet_x": at_x[step],
            "frechet_r": at_r[step],
            "kernel_r": kernel_distance(features(r), data),
            "distance_to_end": float((r - end).flatten(1).double().norm(dim=1).mean()),
        }
        records.append(record)
        rows.append(
            [pictures.level(record["sigma"]), str(step + 1)]
            + [_short(record[key]) for key in ("frechet_x", "frechet_r", "kernel_r", "distance_to_end")]
        )
    return Finding(
        key="ode-jump",
        kind="Method",
        title="ODE-Jump: the last steps can be skipped",
        claim="Solving to σ_j and answering r(x_j; σ_j) gives nearly the quality of the whole trajectory at fewer "
        "evaluations.",
        measure=f"Trajectories of {name}, 20 Euler steps, {context.num} noises. Held if at some σ_j that saves a fifth "
        "of the evaluations, r_j is within 10% of the final Fréchet distance.",
        held=saved >= 0.2,
        verdict=f"At σ_j = {float(trajectory.sigmas[best]):.3g}, after {best + 1} of {last + 1} evaluations "
        f"({saved:.0%} saved), the Fréchet distance is {at_r[best]:.3g} against {at_r[last]:.3g} at the end; "
        f"stopping at x_j there gives {at_x[best]:.3g}.",
        figures={"denoiser": name, "jumps": records},
        table=rows,
        pictures=_jumps(context, trajectory, steps),
    )


def memorisation(context: Context) -> Finding:
    """The nearest data point of every sample, for each denoiser there is."""
    figures: dict[str, object] = {}
    shown_pictures, sentences, copied = [], [], {}
    figure, made = axes("σ", "distance to the nearest data point", noise=True)
    for (name, trajectory), color in zip(_trajectories(context), (BLUE, GREEN), strict=False):
        samples = trajectory.denoised[-1]
        found = nearest(context.optimal, samples)
        copied[name] = float(found.copied.double().mean())
        median = float(found.distance.median())
        sentences.append(f"{name.capitalize()}: {copied[name]:.0%} copies, median distance {median:.3g}. ")
        figures[name] = {
            "share_copied": copied[name],
            "distance_median": median,
            "distance_largest": float(found.distance.max()),
            "second_median": float(found.second.median()),
        }
        shown_pictures += _neighbours(context, name, samples, found.index)
        distances = torch.stack([nearest(context.optimal, r).distance for r in trajectory.denoised])
        band(made, trajectory.sigmas[:-1], distances, name, color)
    shown_pictures.append(
        drawn(figure, "Distance of r(x_σ; σ) to the nearest data point; mean and 5th to 95th percentile.")
    )
    return Finding(
        key="memorisation",
        kind="Limit",
        title="The optimal denoiser only repeats its data",
        claim="As σ → 0 the optimal denoiser returns the nearest data point, so its trajectories end on the data.",
        measure=f"Nearest and second nearest data point of {context.num} samples. A copy: nearer than a third of the "
        "second distance. Held if 95% of the optimal denoiser's samples are copies.",
        held=copied["optimal denoiser"] >= 0.95,
        verdict="".join(sentences).strip(),
        figures=figures,
        pictures=shown_pictures,
    )


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _jumps(context: Context, trajectory: Trajectory, steps: list[int]) -> list[Picture]:
    """x_j above r_j, the answer of a jump, for two noises; none for data that are no pictures."""
    try:
        pictures.check_shape(context.shape)
    except ValueError:
        return []
    rows = []
    for sample in range(min(2, context.num)):
        noisy = [trajectory.states[step, sample] / (1 + float(trajectory.sigmas[step]) ** 2) ** 0.5 for step in steps]
        rows += [("x_j", torch.stack(noisy)), ("r_j", trajectory.denoised[steps, sample])]
    columns = [pictures.level(float(trajectory.sigmas[step])) for step in steps]
    caption = "Stopping at x_j (divided by √(1 + σ²)) above jumping to r_j, for two noises."
    return [image_rows(rows, columns, caption, above="σ_j", group=2)]


def _trajectories(context: Context) -> list[tuple[str, Trajectory]]:
    """By name; the network's last, from the same noise."""
    found = [("optimal denoiser", context.optimal_trajectory)]
    return [*found, ("network", context.deviation.learned)] if context.learned is not None else found


def _sample_of_data(context: Context) -> Tensor:
    """All data, or 5,000 evenly spread points, in model space."""
    return model_space(context.spread(5000), torch.float32)


def _distances(context: Context, trajectory: Trajectory) -> tuple[Tensor, Tensor]:
    """Fréchet distance to the data of x and r at each level that was evaluated, [S] each."""
    features = context.features
    data = features(_sample_of_data(context))
    at_x = [frechet_distance(features(x), data) for x in trajectory.states[:-1]]
    at_r = [frechet_distance(features(r), data) for r in trajectory.denoised]
    return torch.tensor(at_x), torch.tensor(at_r)


def _arrival(levels: Tensor, distances: Tensor) -> float:
    """The level from which on the distance stays within a factor of its last value."""
    away = (distances > _CLOSE * distances[-1]).nonzero()
    return float(levels[int(away[-1]) + 1 if len(away) else 0])


def _neighbours(context: Context, name: str, samples: Tensor, index: Tensor) -> list[Picture]:
    """Samples above their nearest data points; none for data that are no pictures."""
    try:
        pictures.check_shape(context.shape)
    except ValueError:
        return []
    points = model_space(context.dataset.data[index[:_SHOWN]], torch.float32)
    caption = f"{name.capitalize()}: samples above their nearest data points."
    rows = [("sample", samples[:_SHOWN]), ("data", points)]
    return [image_rows(rows, [str(number + 1) for number in range(len(points))], caption, above="", group=2)]
