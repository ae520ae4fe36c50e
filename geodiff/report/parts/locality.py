"""Local denoisers: whether the network is nearer to them than to the optimal one, and of which images they are made."""

import math

import torch
from torch import Tensor

from geodiff.analysis.locality import Agreement, Denoiser, Mosaic, agreement, mosaic
from geodiff.local import LocalDenoiser, PatchSchedule, published
from geodiff.report.context import Context
from geodiff.report.figures import BLUE, ORANGE, axes, band, drawn, image_rows, numbers
from geodiff.report.finding import Finding, Picture, Subject

_MOST = 8  # samples: a posterior a pixel costs more than one an image
_LEAST, _LARGEST = 0.05, 30.0
_SUBJECT = Subject(
    "local-denoisers",
    "Observation",
    "The network is nearer to a local denoiser",
    "A network that generalises does not follow the optimal denoiser, which leads to copies of data points. It answers "
    "as local denoisers do, whose posteriors see a window around each pixel and patch images together "
    "(Kamb and Ganguli, 2412.20292; Niedoba et al., 2411.19339).",
)


def local_denoisers(context: Context) -> Finding:
    """Correlations of the network's answers with those of the optimal denoiser and of LS, along its own samples."""
    missing = _missing(context)
    if missing:
        return _SUBJECT.not_measured("Needs images and a learned denoiser or flow of this data.", missing)
    name, schedule = _schedule(context)
    local = LocalDenoiser(context.dataset.data, patch=schedule)
    walked = context.deviation.learned
    steps = [step for step, sigma in enumerate(context.sigmas[:-1].tolist()) if _LEAST <= sigma <= _LARGEST][::2]
    levels, noisy = context.sigmas[steps], walked.states[steps, :_MOST]
    asked: dict[str, Denoiser] = {"network": context.ask_learned, "optimal": context.ask_optimal, "local": local}
    found = agreement(asked, noisy, levels, context.tick)
    made = [mosaic(local, x, sigma) for x, sigma in zip(noisy, levels.tolist(), strict=True)]
    optimal, nearer = (float(found.correlations[who].mean()) for who in ("optimal", "local"))
    count, pieces = noisy.shape[1], torch.stack([one.pieces.double() for one in made]).mean(1)
    shared = torch.stack([one.ess.double().mean() for one in made])
    rows = zip(levels.tolist(), found.correlations["optimal"], found.correlations["local"], pieces, shared, strict=True)
    return Finding(
        *_SUBJECT,
        measure=f"{count} samples of the network by Euler's method, at {len(steps)} of its levels from σ = "
        f"{levels[0]:.3g} to {levels[-1]:.2g}: correlation of its answer with that of the optimal denoiser and of LS, "
        f"all numbers of an image less their mean, over the same {len(context.dataset)} points. Windows k(σ): the "
        f"published table {name!r}, not fitted to this network. Held if the mean correlation is larger for LS.",
        held=nearer > optimal,
        verdict=f"Correlation with the network {nearer:.3f} for LS and {optimal:.3f} for the optimal denoiser. At σ = "
        f"{levels[-1]:.2g} an image is made of {float(pieces[-1]):.0f} images on average, and {float(shared[-1]):.1f} "
        f"share a pixel (N_eff).",
        figures={
            "sigma": numbers(levels),
            "patch": [schedule(sigma) for sigma in levels.tolist()],
            "correlation": {who: numbers(values.mean(1)) for who, values in found.correlations.items()},
            "distance": {who: numbers(values.mean(1)) for who, values in found.distances.items()},
            "pieces": numbers(pieces),
            "images_per_pixel": numbers(shared),
        },
        table=[
            ["σ", "k", "optimal", "LS", "images in it", "N_eff of a pixel"],
            *(
                [f"{s:.3g}", str(schedule(s)), f"{a.mean():.3f}", f"{b.mean():.3f}", f"{p:.0f}", f"{n:.1f}"]
                for s, a, b, p, n in rows
            ),
        ],
        pictures=_pictures(levels, noisy, found, made),
    )


def _missing(context: Context) -> str:
    """What this cannot do without; "" if all is there."""
    if context.learned is None:
        return "no denoiser or flow was given (--net)"
    return "" if len(context.shape) == 3 else "the data are no images [C, H, W]"


def _schedule(context: Context) -> tuple[str, PatchSchedule]:
    name = "mnist_unet_zeros" if context.shape[0] == 1 else "cifar10_unet_zeros"
    return name, published(name)


def _pictures(levels: Tensor, noisy: Tensor, found: Agreement, made: list[Mosaic]) -> list[Picture]:
    figure, shown = axes("σ", "correlation with the network", noise=True)
    band(shown, levels, found.correlations["optimal"], "optimal", ORANGE)
    band(shown, levels, found.correlations["local"], "LS", BLUE)
    curves = drawn(figure, "Answers to the same points along the network's samples: mean, and 5th to 95th percentile.")
    first = [values[:, 0] for values in (noisy, *found.answers.values())]
    seen = first[0] / torch.tensor([math.sqrt(1 + sigma**2) for sigma in levels.tolist()])[:, None, None, None]
    rows = [("x", seen), *zip(("network", "optimal", "LS"), first[1:], strict=True)]
    rows.append(("mosaic", torch.stack([one.images[0] for one in made])))
    rows.append(("from", torch.stack([_coloured(one.nearest[0]) for one in made])))
    caption = "One sample: what LS would take each pixel from alone, and from which image that is, a colour for each."
    return [curves, image_rows(rows, [f"{sigma:.2g}" for sigma in levels.tolist()], caption)]


def _coloured(indices: Tensor) -> Tensor:
    """A colour for each number [H, W], [3, H, W] in model space: the same number has the same colour everywhere."""
    turns = torch.tensor([0.6180, 0.7549, 0.5698], dtype=torch.float64)  # irrational, so that no two fall together soon
    return (2 * ((indices[None].double() + 1) * turns[:, None, None] % 1) - 1).float()
