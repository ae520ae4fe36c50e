"""Spontaneous symmetry breaking: where the fixed point of the denoiser splits, and how late sampling may start."""

import torch

from geodiff.analytic import GaussianDenoiser
from geodiff.quality import frechet_distance
from geodiff.reference import model_space
from geodiff.report.context import Context
from geodiff.report.figures import BLUE, ORANGE, axes, drawn, line, numbers
from geodiff.report.finding import Finding
from geodiff.symmetry import LateStart, bifurcation, critical_sigma, late_start

_POINTS = 1000  # of the data for the critical level, which is found by repeated passes over them
_COUNT = 256
_FACTORS = (12.0, 8.0, 5.0, 3.0, 2.0, 1.4, 1.0, 0.7, 0.5, 0.35, 0.25)


def symmetry_breaking(context: Context) -> Finding:
    """The critical level at the mean of the data, the branches below it, and quality against the start level."""
    data = context.dataset.data
    few = data[torch.linspace(0, len(data) - 1, min(len(data), _POINTS)).round().long()]
    found = critical_sigma(few, x=model_space(few, torch.float64).mean(0), tol=1e-3)
    title = "Sampling breaks symmetry at a critical noise level"
    claim = (
        "Above σ_c² = λ_max of the posterior covariance the denoiser has one stable fixed point, below it several. "
        "Until there the data are a Gaussian, so that sampling may start as late without loss."
    )
    if found is None:
        return Finding(
            key="symmetry-breaking",
            kind="Observation",
            title=title,
            claim=claim,
            measure=f"{len(few)} data points.",
            held=None,
            verdict="Not measured: the mean of these data is stable at every level, nothing splits.",
        )
    critical = found.sigma
    levels = [critical * factor for factor in (1.3, 1.2, 1.1, 1.0, 0.95, 0.9, 0.8, 0.7, 0.5)]
    branches = bifurcation(context.ask_optimal, found.x, found.direction, levels, offset=0.1, iterations=60)
    apart = (branches[:, 0] - branches[:, 1]).flatten(1).norm(dim=1)  # [L]

    gaussian = GaussianDenoiser.fit(data[torch.linspace(0, len(data) - 1, min(len(data), 5000)).round().long()])
    points = context.features(model_space(data[:: max(1, len(data) // 5000)], torch.float32))

    def quality(samples: torch.Tensor) -> float:
        return frechet_distance(context.features(samples), points)

    starts = [critical * factor for factor in _FACTORS]
    curve: list[LateStart] = late_start(
        context.ask_optimal, gaussian, starts, context.sigmas, quality, count=_COUNT, seed=context.seed
    )
    values = {start.sigma: start.quality for start in curve}
    best = min(values.values())
    early = max(value for sigma, value in values.items() if sigma >= 2 * critical)
    late = values[starts[-1]]

    figure, shown = axes("σ / σ_c", "distance of the two branches")
    line(shown, [level / critical for level in levels], apart, "fixed points", BLUE)
    shown.axvline(1.0, color=ORANGE, linewidth=1.4, label="σ_c")
    shown.invert_xaxis()
    split = drawn(figure, "Fixed points of the optimal denoiser that are reached from either side of the mean.")
    figure, shown = axes("start level σ", "Fréchet distance of the samples", noise=True)
    line(shown, starts, [start.quality for start in curve], "Gaussian late start", BLUE)
    shown.axvline(critical, color=ORANGE, linewidth=1.4, label="σ_c of the ODE")
    shown.set_yscale("log")
    quality_picture = drawn(figure, "Quality of samples that start from a Gaussian at the level σ.")
    return Finding(
        key="symmetry-breaking",
        kind="Observation",
        title=title,
        claim=claim,
        measure=f"σ_c is that of the ODE (mean shift) at the mean of {len(few)} data points, not that of the SDE. Late "
        f"start: {_COUNT} draws of the Gaussian of the data at σ, Heun's method from there with the optimal denoiser, "
        "Fréchet distance over principal components. Held if every start at 2 σ_c or above is within 1.5 times the "
        "best distance, and the latest start, at a quarter of σ_c, is worse than twice the best.",
        held=early <= 1.5 * best and late > 2 * best,
        verdict=f"σ_c = {critical:.2f}. Starts at 2 σ_c or above are within {early / best:.2f} times the best "
        f"distance; the start at {starts[-1]:.2g} has {late / best:.1f} times. At 1.3 σ_c the two branches are "
        f"{float(apart[0]):.2g} apart, at σ_c / 2 {float(apart[-1]):.3g}.",
        figures={
            "critical_sigma_ode": critical,
            "points": len(few),
            "branch_sigma": levels,
            "branch_distance": numbers(apart),
            "start_sigma": starts,
            "start_frechet": [start.quality for start in curve],
            "start_evaluations": [start.evaluations for start in curve],
        },
        pictures=[split, quality_picture],
    )
