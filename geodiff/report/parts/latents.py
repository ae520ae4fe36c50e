"""Interpolation between two noises: the length of what lies between, and what it decodes to."""

import math

from geodiff.analysis import interpolation
from geodiff.output import pictures
from geodiff.report.context import Context
from geodiff.report.figures import BLUE, GREEN, ORANGE, axes, drawn, image_rows, line, numbers
from geodiff.report.finding import Finding
from geodiff.schedules import karras

_POINTS = 9
_PAIRS = 32
_COLORS = (BLUE, ORANGE, GREEN)


def latent_interpolation(context: Context) -> Finding:
    """Norm ratios of three interpolations over many pairs, and decoded rows of one pair."""
    start = 80.0
    z1, z2 = (start * context.normal(_PAIRS, stream=stream) for stream in (7, 8))
    ask = context.ask_learned if context.learned is not None else context.ask_optimal
    decoded = {
        how: interpolation.decode(ask, z1[:1], z2[:1], karras(18), how=how, points=_POINTS)
        for how in interpolation.INTERPOLATIONS
    }
    weights = decoded["linear"].weights
    ratios = {
        how: interpolation.shell_ratio(between(z1, z2, weights), start).mean(1)
        for how, between in interpolation.INTERPOLATIONS.items()
    }
    expected = ((1 - weights).square() + weights.square()).sqrt()
    # The mean over P pairs of |z| / (sigma sqrt d) has the standard error 1 / sqrt(2 d P) and a bias of 1 / (4 d).
    allowed = 4 / math.sqrt(2 * context.dimension * _PAIRS) + 1 / (2 * context.dimension)
    off_linear = float((ratios["linear"] - expected).abs().max())
    off_shell = float(max((ratios[how] - 1).abs().max() for how in ("slerp", "rescaled")))

    figure, shown = axes("λ", "‖z‖ / (σ√d)")
    for (how, ratio), color in zip(ratios.items(), _COLORS, strict=True):
        line(shown, weights, ratio, how, color, under=how == "slerp")
    shown_pictures = [drawn(figure, f"Length of interpolated noise, mean over {_PAIRS} pairs; 1 is on the shell.")]
    try:
        pictures.check_shape(context.shape)
    except ValueError:
        pass  # no pictures, no rows
    else:
        rows = [(how, found.samples[:, 0]) for how, found in decoded.items()]
        columns = [f"{weight:.2g}" for weight in weights.tolist()]
        shown_pictures.insert(
            0, image_rows(rows, columns, "One pair of noises, decoded with Heun's method.", above="λ")
        )
    middle = {how: float(ratio[_POINTS // 2]) for how, ratio in ratios.items()}
    return Finding(
        key="interpolation",
        kind="Observation",
        title="Linear interpolation leaves the shell; slerp and rescaling stay on it",
        claim="Between two noises the linear mixture has √((1−λ)² + λ²) of their length; spherical and rescaled "
        "interpolation keep it.",
        measure=f"{_PAIRS} pairs of noises in d = {context.dimension:,}. Held if the mean ratio of lengths is within "
        f"four standard errors ({allowed:.4f}) of √((1−λ)² + λ²) for the linear one and of 1 for the "
        "others, at every λ.",
        held=off_linear <= allowed and off_shell <= allowed,
        verdict=f"At λ = ½ the ratio is {middle['linear']:.4f} linear, {middle['slerp']:.4f} slerp and "
        f"{middle['rescaled']:.4f} rescaled. Largest difference from theory: {max(off_linear, off_shell):.4f}.",
        figures={
            "weights": numbers(weights),
            "ratio": {how: numbers(ratio) for how, ratio in ratios.items()},
            "linear_expected": numbers(expected),
            "allowed": allowed,
        },
        pictures=shown_pictures,
    )
