"""The Gaussian companion: how far the data are a Gaussian to the denoiser, level by level."""

import torch

from geodiff.analysis.analytic import GaussianDenoiser
from geodiff.report.context import Context
from geodiff.report.figures import BLUE, GREEN, axes, band, drawn, numbers
from geodiff.report.finding import Finding

_POINTS = 5000
_HIGH = 10.0


def gaussian_companion(context: Context) -> Finding:
    """The Wiener denoiser against the optimal one, and its closed-form trajectory against the solved one."""
    chosen = context.spread(_POINTS)
    gaussian = GaussianDenoiser.fit(chosen)
    trajectory = context.optimal_trajectory
    closed = gaussian.trajectory(context.noise, context.sigmas)
    levels, scale = context.sigmas[:-1], context.data_norm
    apart = torch.stack(
        [
            _distance(gaussian(x, s), r)
            for x, s, r in zip(trajectory.states[:-1], levels.tolist(), trajectory.denoised, strict=True)
        ]
    )
    states = torch.stack([_distance(x, y) for x, y in zip(trajectory.states[:-1], closed.states[:-1], strict=True)])
    high = float(apart.mean(1)[levels >= _HIGH].max()) / scale
    low = float(apart.mean(1).max()) / scale
    figure, shown = axes("σ", "distance", noise=True)
    band(shown, levels, apart, "denoisers, at x*", BLUE)
    band(shown, levels, states, "trajectories", GREEN)
    return Finding(
        key="gaussian",
        kind="Observation",
        title="In high noise the data are a Gaussian",
        claim="For large σ the optimal denoiser is that of a Gaussian with the mean and covariance of the data, whose "
        "trajectory is known in closed form.",
        measure=f"Mean and covariance of {len(chosen):,} data points. Held if the mean distance of the two "
        f"denoisers over {scale:.2f}, the root mean square distance of data points from their mean, stays below 0.1 "
        "for σ ≥ 10.",
        held=high <= 0.1,
        verdict=f"For σ ≥ 10 the two denoisers differ by at most {high:.3f} of that; below, by up to {low:.2f}.",
        figures={
            "sigma": numbers(levels),
            "denoisers": numbers(apart.mean(1)),
            "trajectories": numbers(states.mean(1)),
            "largest_above_10": high,
            "largest": low,
        },
        pictures=[
            drawn(
                figure,
                "Optimal against Gaussian: denoisers at the same point, and trajectories from the "
                "same noise (the Gaussian's in closed form, the optimal one's by 20 Heun steps).",
            )
        ],
    )


def _distance(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a.double() - b.double()).flatten(1).norm(dim=1)
