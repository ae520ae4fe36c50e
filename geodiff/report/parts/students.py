"""Distillation: a student beside its teacher at the same number of evaluations, and what it remembers."""

from geodiff.learned import load as load_weights
from geodiff.measure.students import Comparison, compare
from geodiff.report.context import Context
from geodiff.report.figures import BLUE, axes, drawn, line
from geodiff.report.finding import Finding, Picture, Subject

_SUBJECT = Subject(
    "distillation",
    "Method",
    "A student goes where its teacher needs many steps",
    "A student distilled from a teacher's trajectories makes in few evaluations what the teacher's own solver does "
    "not: its samples are nearer to the data, in distribution, than the teacher's at the same number of evaluations.",
)


def distilled(context: Context) -> Finding:
    """Fréchet distances of student and teacher at equal NFE, the distance to the teacher's ends, copies."""
    network = context.network
    method = None if network is None else network.training_metadata.get("distill")
    if network is None or method is None:
        return _SUBJECT.not_measured(
            "Needs a student (geodiff train --distill) of this data.", "no student was given (--net)"
        )
    named = str(network.training_metadata.get("teacher", "optimal"))
    teacher = context.optimal if named == "optimal" else load_weights(named)
    found = compare(network, teacher, context.dataset, num=context.num, seed=context.seed)
    context.tick()
    return Finding(
        *_SUBJECT,
        measure=f"{context.num} samples of the student ({method}, of {named}) and of its teacher from the same noises; "
        "Fréchet distances from the data over 64 principal components. Held if the student's is at most half of that "
        "of the teacher's Euler solver with as many evaluations.",
        held=found.frechet <= found.own / 2,
        verdict=f"At {found.nfe} evaluation(s) the Fréchet distance is {found.frechet:.3g}, the teacher's own "
        f"{found.own:.3g}, and {found.teacher:.3g} with 35. Samples lie {found.end_distance:.3g} from where the "
        f"teacher ends, and {found.nearest:.3g} from the nearest data point; {found.copied:.0%} are copies.",
        figures={name: value for name, value in vars(found).items() if name != "consistency"}
        | {"method": method, "teacher_name": named, "consistency": found.consistency},
        table=[["σ", "‖f(x, σ) − x̂₀‖"], *([sigma, f"{far:.3g}"] for sigma, far in found.consistency.items())]
        if found.consistency
        else [],
        pictures=_pictures(found),
    )


def _pictures(found: Comparison) -> list[Picture]:
    """Self-consistency along the teacher's trajectories, of a consistency model."""
    if not found.consistency:
        return []
    figure, shown = axes("σ", "distance of f(x, σ) from the teacher's end", noise=True)
    line(shown, [float(sigma) for sigma in found.consistency], list(found.consistency.values()), "mean", BLUE)
    return [drawn(figure, "How far the student is from one answer along the teacher's trajectories.")]
