"""Spontaneous symmetry breaking: where the fixed point of the denoiser splits, and how late sampling may start."""

import torch

from geodiff.analysis.analytic import GaussianDenoiser
from geodiff.analysis.mean_shift import mean_shift
from geodiff.analysis.quality import frechet_distance
from geodiff.analysis.symmetry import LateStart, critical_sigma, late_start
from geodiff.reference.formula import model_space
from geodiff.report.context import Context
from geodiff.report.figures import BLUE, ORANGE, axes, drawn, line
from geodiff.report.finding import Finding, Subject

_COUNT = 256
_STARTS = 48
_BRANCH_FACTORS = (1.3, 1.2, 1.1, 1.05, 1.0, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5)
_FACTORS = (12.0, 8.0, 5.0, 3.0, 2.0, 1.4, 1.0, 0.7, 0.5, 0.35, 0.25)
_SUBJECT = Subject(
    "symmetry-breaking",
    "Observation",
    "Sampling breaks symmetry at a critical noise level",
    "Above σ_c² = λ_max of the posterior covariance the denoiser has one stable fixed point, below it several. "
    "Until there the data are a Gaussian, so that sampling may start as late without loss.",
)


def symmetry_breaking(context: Context) -> Finding:
    """The critical level at the mean of the data, the branches below it, and quality against the start level."""
    found = critical_sigma(context.optimal, x=context.optimal.mean, tol=1e-3)
    if found is None:
        return _SUBJECT.not_measured(
            f"σ_c at the mean of {len(context.dataset):,} data points.",
            "the mean of these data is stable at every level, nothing splits",
        )
    critical = found.sigma
    levels = [critical * factor for factor in _BRANCH_FACTORS]
    starting = context.points(_STARTS, stream=9)
    found_modes = [mean_shift(context.ask_optimal, starting, level, max_iterations=200) for level in levels]
    counts = [len(shifted.modes) for shifted in found_modes]
    converged = [int(shifted.converged.sum()) for shifted in found_modes]

    gaussian = GaussianDenoiser.fit(context.spread(5000))
    points = context.features(model_space(context.spread(5000), torch.float32))

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
    one, more = (counts[_BRANCH_FACTORS.index(factor)] for factor in (1.1, 0.9))

    figure, shown = axes("σ / σ_c", f"distinct fixed points from {_STARTS} starts")
    line(shown, _BRANCH_FACTORS, [float(count) for count in counts], "fixed points", BLUE)
    shown.axvline(1.0, color=ORANGE, linewidth=1.4, label="σ_c of the ODE")
    shown.invert_xaxis()
    split = drawn(figure, "Fixed points that mean shift with bandwidth σ reaches from data points.")
    figure, shown = axes("start level σ", "Fréchet distance of the samples", noise=True)
    line(shown, starts, [start.quality for start in curve], "Gaussian late start", BLUE)
    shown.axvline(critical, color=ORANGE, linewidth=1.4, label="σ_c of the ODE")
    if max(values.values()) > 10 * best:
        shown.set_yscale("log")
    quality_picture = drawn(figure, "Quality of samples that start from a Gaussian at the level σ.")
    return Finding(
        *_SUBJECT,
        measure="σ_c is that of the ODE (mean shift), not that of the SDE, at the mean of the "
        f"{len(context.dataset):,} data points. Fixed points: mean shift from {_STARTS} of them until it stands. "
        f"Late start: {_COUNT} draws of the Gaussian of the data at σ, Heun's method from there with the optimal "
        "denoiser, Fréchet distance over "
        "principal components. Held if there is one fixed point at 1.1 σ_c and more at 0.9 σ_c, every start at 2 σ_c "
        "or above is within 1.5 times the best distance, and the latest start, at a quarter of σ_c, is worse.",
        held=one == 1 and more > 1 and early <= 1.5 * best and late > 1.5 * best,
        verdict=f"σ_c = {critical:.2f}. Fixed points: {one} at 1.1 σ_c, {more} at 0.9 σ_c, {counts[-1]} at "
        f"{_BRANCH_FACTORS[-1]:g} σ_c. Starts at 2 σ_c or above are within {early / best:.2f} times the best distance; "
        f"the start at a quarter of σ_c has {late / best:.1f} times.",
        figures={
            "critical_sigma_ode": critical,
            "sigma": levels,
            "fixed_points": counts,
            "starts_converged": converged,
            "start_sigma": starts,
            "start_frechet": [start.quality for start in curve],
            "start_evaluations": [start.evaluations for start in curve],
        },
        pictures=[split, quality_picture],
    )
