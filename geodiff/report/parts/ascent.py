"""The propositions on the optimal denoiser as a mean shift, and on the likelihood that a denoiser climbs."""

import torch

from geodiff.analysis.likelihood_ascent import likelihood_ascent
from geodiff.analysis.mean_shift import mean_shift
from geodiff.reference.contract import log_prob_allowed
from geodiff.report.context import Context
from geodiff.report.figures import BLUE, GREEN, ORANGE, RED, axes, drawn, line, numbers
from geodiff.report.finding import Finding
from geodiff.schedules import karras

_ITERATIONS = 12
_QUERIES = 64


def annealed_mean_shift(context: Context) -> Finding:
    """The Euler step against a mean shift cut short, and the likelihood along mean shifts of fixed bandwidth."""
    trajectory = context.euler_trajectory
    levels = trajectory.sigmas.tolist()
    gap = 0.0
    for step in range(len(levels) - 1):
        x, cut = trajectory.states[step], 1 - levels[step + 1] / levels[step]
        ours = torch.lerp(x, mean_shift(context.ask_optimal, x, levels[step], max_iterations=1).points, cut)
        scale = trajectory.states[step + 1].flatten(1).norm(dim=1)
        gap = max(gap, float(((ours - trajectory.states[step + 1]).flatten(1).norm(dim=1) / scale).max()))

    figure, shown = axes("iteration of x ← r*(x; σ)", "log p_σ(x) below the last, nats")
    drops, gains = 0, {}
    bandwidths = [8.0, 4.0, 2.0]
    for sigma, color in zip(bandwidths, (BLUE, GREEN, ORANGE), strict=True):
        start = context.points(_QUERIES, stream=3) + sigma * context.normal(_QUERIES, stream=4)
        iterates = [start]
        for _ in range(_ITERATIONS):
            iterates.append(mean_shift(context.ask_optimal, iterates[-1], sigma, max_iterations=1).points)
        likelihood = torch.stack([context.optimal.log_prob(x.double(), sigma) for x in iterates])  # [I + 1, B]
        slack = 2 * log_prob_allowed(likelihood)
        drops += int((likelihood.diff(dim=0) < -slack[1:]).sum())
        gained = (likelihood - likelihood[0]).mean(1)
        gains[f"{sigma:g}"] = numbers(gained)
        left = gained[-1] - gained[:-1]
        above = int((left > 0).int().cumprod(0).sum())  # further on it stands still, but for rounding
        line(shown, list(range(above)), left[:above], f"σ = {sigma:g}", color)
    shown.set_yscale("log")
    picture = drawn(
        figure, f"How far the log-likelihood is below that of iterate {_ITERATIONS}, mean over {_QUERIES} starts."
    )
    return Finding(
        key="mean-shift",
        kind="Proposition",
        title="The optimal ODE is an annealed mean shift",
        claim="r*(x; σ) − x is the Gaussian mean-shift vector of bandwidth σ, so an Euler step is a mean shift cut "
        "short to 1 − σ'/σ, and mean shift at fixed σ never lowers p_σ.",
        measure="Each Euler step of an optimal trajectory against the shortened mean shift, relative to ‖x‖; and "
        f"{_ITERATIONS} iterations x ← r*(x; σ) from noised data. Held if the steps agree to 1e-5 and no iteration "
        "lowers the likelihood by more than the accuracy of log p.",
        held=gap <= 1e-5 and drops == 0,
        verdict=f"The steps agree to {gap:.1e}; {drops} of {3 * _ITERATIONS * _QUERIES:,} mean-shift iterations lower "
        "the likelihood.",
        figures={"largest_relative_gap": gap, "iterations_that_descend": drops, "log_prob_gain": gains},
        pictures=[picture],
    )


def likelihood_climbs(context: Context) -> Finding:
    """The condition and the ascent, at every level of a trajectory of the denoiser that is examined."""
    network = context.learned is not None
    trajectory = context.deviation.learned if network else context.euler_trajectory
    ask = context.ask_learned if network else context.ask_optimal
    levels = karras(len(trajectory.sigmas))[:-1].tolist()
    close, climbs, counterexamples, gains = [], [], 0, []
    for step in range(len(levels) - 1):
        found = likelihood_ascent(
            context.optimal, ask, trajectory.states[step, :_QUERIES].double(), levels[step], levels[step + 1]
        )
        close.append(float(found.close.double().mean()))
        rising = (found.at_denoised >= found.at_start) & (found.at_step >= found.at_start)
        climbs.append(float(rising.double().mean()))
        counterexamples += int((~found.holds).sum())
        gains.append(float((found.at_step - found.at_start).mean()))
    checked = round(sum(close) * min(_QUERIES, context.num))
    figure, shown = axes("σ", "share of points", noise=True)
    line(shown, levels[:-1], close, "condition met", BLUE, under=True)
    line(shown, levels[:-1], climbs, "likelihood rises", RED)
    shown.set_ylim(-0.05, 1.08)
    who = "the network" if network else "the optimal denoiser"
    picture = drawn(figure, f"Along trajectories of {who}: where the condition is met, and where the likelihood rises.")
    return Finding(
        key="likelihood-ascent",
        kind="Proposition",
        title="A denoiser that is close enough climbs the likelihood",
        claim="If ‖r_θ − r*‖ ≤ ‖r* − x‖, then p_σ falls neither at r_θ(x; σ) nor at the Euler step.",
        measure=f"Along {min(_QUERIES, context.num)} trajectories of {who}, log p_σ over the data at x, at r_θ and at "
        "the Euler step. Held if there is no counterexample among the points that meet the condition.",
        held=counterexamples == 0 and checked > 0,
        verdict=f"{counterexamples} counterexamples among {checked:,} points that meet the condition "
        f"({sum(close) / len(close):.0%} of all).",
        figures={
            "sigma": levels[:-1],
            "condition_met": close,
            "likelihood_rises": climbs,
            "mean_gain_of_step": gains,
            "counterexamples": counterexamples,
        },
        pictures=[picture],
    )
