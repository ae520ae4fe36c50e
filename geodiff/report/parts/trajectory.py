"""Observations 1 to 3: the shapes of sampling and denoising trajectories of the optimal denoiser."""

import math
from itertools import pairwise

import torch
from torch import Tensor

from geodiff.analysis.geometry import cosines, deviation, direction_magnitude, distance_to_end, magnitude
from geodiff.output import pictures
from geodiff.report.context import Context
from geodiff.report.figures import BLUE, ORANGE, axes, band, drawn, image_rows, numbers
from geodiff.report.finding import Finding, Picture
from geodiff.solvers.trajectory import Trajectory

_SHOWN = 3


def almost_straight(context: Context) -> Finding:
    """Observation 1, with the picture of both trajectories."""
    trajectory = context.optimal_trajectory
    x, r = trajectory.states, trajectory.denoised
    dev_x, dev_r = deviation(x), deviation(r)  # [S + 1, B], [S, B]
    bent_x = dev_x.amax(0) / (x[-1] - x[0]).flatten(1).double().norm(dim=1)
    bent_r = dev_r.amax(0) / (r[-1] - r[0]).flatten(1).double().norm(dim=1)
    share = float((bent_x < bent_r).double().mean())
    cosine = cosines(trajectory)[:-1]  # at the last level x - x_end is one short step
    straightness = float((dev_x.amax(0) / x[0].flatten(1).double().norm(dim=1)).mean())
    mean_x, mean_r = float(bent_x.mean()), float(bent_r.mean())
    peak = float(trajectory.sigmas[dev_x.mean(1).argmax()])
    length = direction_magnitude(trajectory).mean(1)
    figure, shown = axes("σ", "distance from the chord", noise=True)
    band(shown, trajectory.sigmas, dev_x, "dev x, sampling", BLUE)
    band(shown, trajectory.sigmas[:-1], dev_r, "dev r, denoising", ORANGE)
    curve = drawn(figure, "Trajectory deviation: mean over noises, band from the 5th to the 95th percentile.")
    return Finding(
        key="observation-1",
        kind="Observation",
        title="The sampling trajectory is almost straight, the denoising trajectory bent",
        claim="Against the length of its chord, x_σ hardly leaves the chord, while r(x_σ; σ) does.",
        measure=f"Optimal denoiser, {context.num} noises, 20 Heun steps. Bend: max dev / chord. Held if the mean bend "
        "of x is below 2% and a tenth of that of r, and x is the straighter for 95% of noises.",
        held=mean_x < 0.02 and mean_x < mean_r / 10 and share >= 0.95,
        verdict=f"Mean bend {mean_x:.2%} for x and {mean_r:.0%} for r; x is the straighter for {share:.0%} of noises. "
        f"Smallest mean cosine of the ODE's direction with x − x_end: {float(cosine.mean(1).min()):.4f}; "
        f"dev x peaks at σ = {peak:.3g}.",
        figures={
            "sigma": numbers(trajectory.sigmas),
            "dev_x": numbers(dev_x.mean(1)),
            "dev_r": numbers(dev_r.mean(1)),
            "bend_x": mean_x,
            "bend_r": mean_r,
            "share_x_straighter": share,
            "straightness": straightness,
            "cosine_mean": numbers(cosine.mean(1)),
            "direction_length": numbers(length),
            "sqrt_d": math.sqrt(context.dimension),
        },
        pictures=[*_rows(trajectory, context.shape), curve],
    )


def monotone_distances(context: Context) -> Finding:
    """Observation 2."""
    trajectory = context.optimal_trajectory
    to_x, to_r = distance_to_end(trajectory.states), distance_to_end(trajectory.denoised)
    rising_x, rising_r = _rises(to_x), _rises(to_r)
    each_x, each_r = _share_monotone(to_x), _share_monotone(to_r)
    x_picture = _curve(
        trajectory.sigmas, to_x, "‖x − x_end‖", BLUE, "Sampling trajectory: distance to its end.", log=True
    )
    r_picture = _curve(
        trajectory.sigmas[:-1], to_r, "‖r − r_end‖", ORANGE, "Denoising trajectory: distance to its end."
    )
    return Finding(
        key="observation-2",
        kind="Observation",
        title="Both trajectories approach their end monotonically",
        claim="E‖x_σ − x_end‖ and E‖r_σ − r_end‖ fall along the trajectory.",
        measure=f"Optimal denoiser, {context.num} noises, 20 Heun steps. Held if neither mean ever rises.",
        held=not rising_x and not rising_r,
        verdict=_where("mean distance of x", rising_x, "falls at every step")
        + _where("mean distance of r", rising_r, "falls at every step")
        + f"Single trajectories that never recede: {each_x:.0%} for x, {each_r:.0%} for r.",
        figures={
            "sigma": numbers(trajectory.sigmas),
            "distance_x": numbers(to_x.mean(1)),
            "distance_r": numbers(to_r.mean(1)),
            "share_monotone_x": each_x,
            "share_monotone_r": each_r,
        },
        pictures=[x_picture, r_picture],
    )


def magnitudes(context: Context) -> Finding:
    """Observation 3."""
    trajectory = context.optimal_trajectory
    of_x, of_r = magnitude(trajectory.states), magnitude(trajectory.denoised)
    rising_x, falling_r = _rises(of_x), _rises(-of_r)
    euler_x = magnitude(context.euler_trajectory.states)
    euler = _where("mean length of x by Euler's method", _rises(euler_x), "falls at every step, too")
    first, last = float(of_r[0].mean()), float(of_r[-1].mean())
    return Finding(
        key="observation-3",
        kind="Observation",
        title="The noisy point shrinks, the denoised point grows",
        claim="E‖x_σ‖ falls and E‖r_σ‖ rises along the trajectory.",
        measure=f"Optimal denoiser, {context.num} noises, 20 Heun steps. Held if the first mean never rises and the "
        "second never falls. Euler's method, which the paper solves with, is reported beside it.",
        held=not rising_x and not falling_r,
        verdict=_where("mean length of x", rising_x, "falls at every step")
        + _where("mean length of r", falling_r, "rises at every step")
        + f"From σ = 80 down, ‖r‖ goes from {first:.2f} to {last:.2f}. "
        + euler.strip(),
        figures={
            "sigma": numbers(trajectory.sigmas),
            "norm_x": numbers(of_x.mean(1)),
            "norm_r": numbers(of_r.mean(1)),
            "norm_x_euler": numbers(euler_x.mean(1)),
            "initial_norm_expected": 80 * math.sqrt(context.dimension),
        },
        pictures=[
            _curve(trajectory.sigmas, of_x, "‖x‖", BLUE, "Length of the noisy point.", log=True),
            _curve(trajectory.sigmas[:-1], of_r, "‖r‖", ORANGE, "Length of the denoised point."),
        ],
    )


def _rows(trajectory: Trajectory, shape: tuple[int, ...]) -> list[Picture]:
    """Rows of pictures of a few samples; none for data that are no pictures."""
    try:
        pictures.check_shape(shape)
    except ValueError:
        return []
    shown = [round(step) for step in torch.linspace(0, len(trajectory.denoised) - 1, 10).tolist()]
    sigmas = trajectory.sigmas.tolist()
    rows = []
    for sample in range(min(_SHOWN, trajectory.states.shape[1])):
        noisy = torch.stack([trajectory.states[step, sample] / math.sqrt(1 + sigmas[step] ** 2) for step in shown])
        rows += [("x", noisy), ("r", trajectory.denoised[shown, sample])]
    caption = "Sampling trajectory x (divided by √(1 + σ²)) above denoising trajectory r, for three noises."
    return [image_rows(rows, [pictures.level(sigmas[step]) for step in shown], caption, group=2)]


def _curve(sigmas: Tensor, values: Tensor, label: str, color: str, caption: str, *, log: bool = False) -> Picture:
    figure, shown = axes("σ", label, noise=True)
    positive = values[: len(values) - 1] if log and float(values[-1].max()) == 0 else values
    band(shown, sigmas[: len(positive)], positive, label, color)
    if log:
        shown.set_yscale("log")
    return drawn(figure, f"{caption} Mean, and band from the 5th to the 95th percentile.")


def _rises(values: Tensor) -> list[int]:
    """The steps in which the mean over samples of values [S, B] rises."""
    return [step for step, (before, after) in enumerate(pairwise(values.mean(1).tolist())) if after > before]


def _share_monotone(values: Tensor) -> float:
    return float((values.diff(dim=0) <= 0).all(0).double().mean())


def _where(what: str, steps: list[int], otherwise: str) -> str:
    """A sentence: that it holds, or where it does not."""
    if not steps:
        return f"The {what} {otherwise}. "
    count = f"{len(steps)} steps, first in" if len(steps) > 1 else ""
    return f"The {what} goes the other way in {count} step {steps[0] + 1}. ".replace("  ", " ")
