"""Flow matching: how far the learned velocity is from the optimal one, and when a sample ceases to be a copy."""

import torch
from torch import Tensor

from geodiff.adapters import FlowModel
from geodiff.analysis import flow_deviation
from geodiff.learned import LearnedFlow
from geodiff.report.context import Context
from geodiff.report.figures import BLUE, GREEN, ORANGE, axes, drawn, image_rows, line, numbers
from geodiff.report.finding import Finding, Picture, Subject

_TIMES = (0.99, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05, 0.02)
_SWITCHES = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
_STEPS = 40
_MOST = 64  # noises: a network costs more than the optimal denoiser
_SHOWN = 8
_SUBJECT = Subject(
    "flow-deviation",
    "Observation",
    "A learned flow leaves the optimal one early",
    "The optimal velocity leads to copies of data points. A learned flow fails to follow it, early along the "
    "trajectory, and that is where its samples cease to be copies: with the optimal velocity until τ and the network "
    "after, samples come nearer to data the later the network takes over, and are copies, or near ones, from early on.",
)


def flow_from_optimal(context: Context) -> Finding:
    """delta(t) = |v - v*| / |v*| along the path, and samples of a flow that is optimal until tau."""
    if context.learned is None:
        return _SUBJECT.not_measured(
            "Needs a learned denoiser or flow of this data.", "no denoiser or flow was given (--net)"
        )
    count = min(context.num, _MOST)
    noise, points = context.normal(count, 7), context.points(count, 8)
    found = flow_deviation.along_path(_velocity(context), context.optimal, points, noise, _TIMES)
    ends = flow_deviation.hybrid(context.ask_learned, context.optimal, noise, _SWITCHES, steps=_STEPS)
    delta, cosine, target = (values.mean(1) for values in (found.relative, found.cosine, found.target))
    distances = ends.distances.mean(1) / context.data_norm
    network, early, copies = float(distances[0]), float(distances[_SWITCHES.index(0.5)]), float(distances[-1])
    falls = bool((distances.diff() <= 0.05 * network).all())
    held = falls and copies <= 1e-3 and early <= 0.5 * network
    return Finding(
        *_SUBJECT,
        measure=f"{count} pairs of noise and data point on x_t = (1 − t) x₀ + t n; δ(t) = ‖v_θ − v*‖ / ‖v*‖, averaged. "
        f"{_STEPS} Euler steps from the same noises, v* until the time τ since the noise, then v_θ; distances to the "
        f"nearest data point over {context.data_norm:.2f}, the root mean square distance of data points from the mean. "
        "Held if the distance falls as τ grows (by no more than 5% of the network's otherwise), is 0 at τ = 1 and at "
        "most half the network's at τ = 0.5.",
        held=held,
        verdict=f"δ is {float(delta[0]):.3f} at t = {_TIMES[0]:g}, {float(delta[6]):.2f} at t = 0.5 and "
        f"{float(delta[-1]):.2f} at t = {_TIMES[-1]:g}. The network's samples lie {network:.2f} from the nearest data "
        f"point; with the optimal flow until τ = 0.2 it is {float(distances[2]):.2f}, until 0.5 {early:.2f}, and along "
        f"the optimal flow alone {copies:.1e}.",
        figures={
            "flow": isinstance(context.learned, LearnedFlow),
            "t": list(_TIMES),
            "delta": numbers(delta),
            "cosine": numbers(cosine),
            "target_cosine": numbers(target),
            "tau": list(_SWITCHES),
            "distance": numbers(distances),
            "data_scale": context.data_norm,
        },
        table=[
            ["t", "σ", "δ", "cos(v_θ, v*)", "cos(n − x₀, v*)"],
            *(
                [f"{t:g}", f"{t / (1 - t):.3g}", f"{d:.3f}", f"{c:.3f}", f"{g:.3f}"]
                for t, d, c, g in zip(_TIMES, delta, cosine, target, strict=True)
            ),
            ["τ", "distance", "", "", ""],
            *([f"{tau:g}", f"{d:.3f}", "", "", ""] for tau, d in zip(_SWITCHES, distances, strict=True)),
        ],
        pictures=_pictures(context, found, ends, distances),
    )


def _velocity(context: Context) -> flow_deviation.Velocity:
    """v(x, t) of the network, whatever it was trained to answer."""
    if isinstance(context.learned, LearnedFlow):
        network = context.learned

        def velocity(x: Tensor, t: float) -> Tensor:
            answer = torch.cat([network.velocity(part, t) for part in x.split(_MOST)])
            context.tick()
            return answer

        return velocity
    return FlowModel(lambda x, sigma: context.ask_learned(x, sigma), "A")


def _pictures(
    context: Context, found: flow_deviation.FlowDeviation, ends: flow_deviation.Hybrid, far: Tensor
) -> list[Picture]:
    figure, shown = axes("t", "δ and cosines")
    line(shown, found.times, found.relative.mean(1), "δ(t)", BLUE)
    line(shown, found.times, found.cosine.mean(1), "cos(v_θ, v*)", ORANGE)
    line(shown, found.times, found.target.mean(1), "cos(n − x₀, v*)", GREEN)
    curves = drawn(
        figure, "The learned against the optimal velocity along the path, from the data (t = 0) to the noise."
    )
    figure, shown = axes("τ", "distance to the nearest data point")
    line(shown, ends.switches, far, "mean over noises", BLUE)
    made = [curves, drawn(figure, "Samples of the flow that is optimal until τ, over the spread of the data.")]
    if len(context.shape) == 3:
        rows = [(f"τ = {tau:g}", samples[:_SHOWN]) for tau, samples in zip(_SWITCHES, ends.samples, strict=True)]
        caption = "Samples from the same noises; from above, the network alone, to below, copies."
        made.append(image_rows(rows, [str(place + 1) for place in range(_SHOWN)], caption, above="noise"))
    return made
