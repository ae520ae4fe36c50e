"""Observation 4: where a learned score agrees with the optimal one, and where it does not."""

from geodiff.report.context import Context
from geodiff.report.figures import BLUE, GREEN, ORANGE, RED, axes, band, drawn, numbers
from geodiff.report.finding import Finding, Subject

_EDGE = 10.0
_SUBJECT = Subject(
    "observation-4",
    "Observation",
    "Learned and optimal score agree in high noise, then part",
    "Learned and optimal score agree for σ from 80 to about 10; below, they diverge along the learned trajectory and "
    "nearly coincide at the end of the optimal one.",
)


def score_agreement(context: Context) -> Finding:
    """The four distances (a) to (d) between learned and optimal trajectories from the same noise."""
    if context.learned is None:
        return _SUBJECT.not_measured("Needs a learned denoiser of this data.", "no denoiser or flow was given (--net)")
    found = context.deviation
    sigmas, scale = found.sigmas, context.data_norm
    a, b, c, d = (part.mean(1) for part in (found.at_learned, found.at_optimal, found.states, found.denoised))
    high, low = sigmas >= _EDGE, sigmas < _EDGE
    agreement = float(a[high].max().maximum(b[high].max())) / scale
    peak = float(a[low].max()) / scale
    end_learned, end_optimal = float(a[-1]) / scale, float(b[-1]) / scale
    held = agreement <= 0.15 and peak >= 3 * agreement and end_optimal <= 0.1 and end_learned >= 3 * end_optimal
    figure, shown = axes("σ", "distance", noise=True)
    band(shown, sigmas, found.at_learned, "(a) r_θ and r* at x̂", BLUE)
    band(shown, sigmas, found.at_optimal, "(b) r_θ and r* at x*", ORANGE)
    denoisers = drawn(figure, "Between the two denoisers, along the learned trajectory x̂ and the optimal one x*.")
    figure, shown = axes("σ", "distance", noise=True)
    band(shown, sigmas, found.states, "(c) x̂ and x*", GREEN)
    band(shown, sigmas, found.denoised, "(d) r_θ(x̂) and r*(x*)", RED)
    trajectories = drawn(figure, "Between the two trajectories from the same noise.")
    return Finding(
        *_SUBJECT,
        measure=f"{context.num} noises, 20 Euler steps for each denoiser. Mean distances over {scale:.2f}, the root "
        "mean square distance of data points from their mean, decide. Held if for σ ≥ 10 (a) and (b) stay below "
        "0.15, below 10 (a) reaches three times its high-noise value, and at the end (b) is below 0.1 and below a "
        "third of (a).",
        held=held,
        verdict=f"For σ ≥ 10 the denoisers differ by at most {agreement:.3f} of that; below, by up to {peak:.2f} along "
        f"the learned trajectory. At the last level: {end_learned:.3f} at the end of the learned trajectory, "
        f"{end_optimal:.3f} at the end of the optimal one.",
        figures={
            "sigma": numbers(sigmas),
            "a": numbers(a),
            "b": numbers(b),
            "c": numbers(c),
            "d": numbers(d),
            "data_scale": scale,
            "largest_above_10": agreement,
            "largest_below_10": peak,
            "end_learned": end_learned,
            "end_optimal": end_optimal,
            "norm_r_optimal": numbers(found.optimal.denoised.flatten(2).double().norm(dim=2).mean(1)),
        },
        table=[
            ["σ", "(a)", "(b)", "(c)", "(d)"],
            *(
                [f"{sigmas[row]:.3g}", *(f"{part[row]:.2f}" for part in (a, b, c, d))]
                for row in [*range(0, len(sigmas) - 1, 2), len(sigmas) - 1]
            ),
        ],
        pictures=[denoisers, trajectories],
    )
