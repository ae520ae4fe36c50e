"""The propositions on noise: where noisy points lie, and that noise moves points outwards."""

import math

import torch

from geodiff.analysis.geometry import thin_shell
from geodiff.report.context import Context
from geodiff.report.figures import BLUE, GREEN, ORANGE, axes, drawn, line
from geodiff.report.finding import Finding

_DRAWS = 2000


def thin_shell_of_noise(context: Context) -> Finding:
    """|sigma z| and |x + sigma z| at five levels."""
    d = context.dimension
    clean, noise = context.points(_DRAWS), context.normal(_DRAWS, stream=2)
    levels = [0.1, 1.0, 10.0, 80.0]
    shells = [thin_shell(clean, sigma * noise, sigma) for sigma in levels]
    spread_error = max(abs(shell.spread / shell.spread_limit - 1) for shell in shells)
    norm_error = max(abs(shell.norm / shell.norm_limit - 1) for shell in shells)
    growth_error = max(abs(shell.growth - 1) for shell, sigma in zip(shells, levels, strict=True) if sigma >= 1)
    outward = min(shell.outward for shell, sigma in zip(shells, levels, strict=True) if sigma >= 1)
    allowed = 4 / math.sqrt(2 * d * _DRAWS) + 1 / (2 * d)  # four standard errors, and twice the bias of the limit
    held = norm_error <= allowed and spread_error <= 0.1 and growth_error <= 0.05 and outward >= 0.99

    figure, shown = axes("‖z‖ / √d", "share of draws per bin")
    ratio = noise.flatten(1).double().norm(dim=1) / d**0.5
    shown.hist(ratio.numpy(), bins=40, weights=torch.full_like(ratio, 1 / len(ratio)).numpy(), color=BLUE, alpha=0.75)
    shown.axvline(1.0, color=ORANGE, linewidth=1.8, label="limit: 1")
    half = 1 / (2 * d) ** 0.5
    shown.axvspan(1 - half, 1 + half, color=ORANGE, alpha=0.15, linewidth=0, label="± 1/√(2d)")
    ratios = drawn(figure, f"Length of {_DRAWS:,} noises in d = {d:,}: a thin shell around √d.")

    figure, shown = axes("σ", "share, or ratio", noise=True)
    line(shown, levels, [shell.outward for shell in shells], "P(‖x + σz‖ > ‖x‖)", BLUE)
    line(shown, levels, [shell.growth for shell in shells], "E[‖x + σz‖² − ‖x‖²] / σ²d", GREEN)
    outwards = drawn(figure, "How often, and by how much, noise moves a data point outwards.")
    return Finding(
        key="thin-shell",
        kind="Proposition",
        title="Noise lies on a thin shell, and moves points outwards",
        claim="‖σz‖ concentrates at σ√d with a spread of σ/√2; E[‖x+σz‖² − ‖x‖²] = σ²d; P(‖x+σz‖ > ‖x‖) → 1 with d.",
        measure=f"{_DRAWS:,} data points and noises. Held if at every σ the spread is within 10% of σ/√2 and the mean "
        "length within four standard errors of σ√d, and at σ ≥ 1 the growth is within 5% and 99% of points move "
        "outwards.",
        held=held,
        verdict=f"The mean length is within {norm_error:.2%} of σ√d, the spread within {spread_error:.1%} of σ/√2. "
        f"From σ = 1 on, {outward:.1%} of points move outwards.",
        figures={
            "d": d,
            "sigma": levels,
            "norm": [shell.norm for shell in shells],
            "norm_limit": [shell.norm_limit for shell in shells],
            "spread": [shell.spread for shell in shells],
            "spread_limit": [shell.spread_limit for shell in shells],
            "growth": [shell.growth for shell in shells],
            "outward": [shell.outward for shell in shells],
        },
        pictures=[ratios, outwards],
    )
