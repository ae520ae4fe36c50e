"""The paper's measurements on CIFAR-10, with the optimal denoiser in place of the network, beside the published ones.

python bench/paper_cifar10.py --data DATA [--num 512] [--num-large-noise 16384] [--out bench/results/paper_cifar10.json]

DATA is anything that `geodiff.data.load` reads CIFAR-10's 50,000 training pictures from. The trajectories are those of
the authors' analysis: Euler steps over 21 Karras levels, 80 .. 0.002. |r| varies so much from noise to noise that the
comparison at large noise takes more of them, which stop there. Prints each claim with what was measured; the exit code
is 1 if one does not hold that is made of the optimal denoiser (some are of the network, and are reported as they come).
"""

import argparse
import math
import sys
import time
from pathlib import Path
from typing import Any

import torch

import geodiff
from geodiff.analysis import geometry
from geodiff.measure import record
from geodiff.solvers.trajectory import Trajectory

# EDM's learned network on 50,000 noises, read off plots to +-0.2: sigma, |r|, dev x, dev r. The last is sigma -> 0.
PUBLISHED = (
    (80.0, 5.6, 0.0, 0.0),
    (45.3, 7.1, 8.7, 1.24),
    (24.4, 10.0, 13.0, 3.0),
    (12.4, 13.9, 14.0, 4.8),
    (5.84, 17.9, 12.7, 5.5),
    (2.52, 21.4, 9.7, 4.5),
    (0.97, 23.2, 6.1, 2.7),
    (0.002, 24.0, 0.0, 0.0),
)
LARGE_NOISE = 10.0  # above, the network and the optimal denoiser are said to agree
ALLOWED = 0.06
STILL = 0.01  # beside norms of 24 and more


def main() -> int:
    """Measure, write, print; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="CIFAR-10's training pictures")
    parser.add_argument("--num", type=int, default=512, help="noises for whole trajectories (default %(default)s)")
    parser.add_argument(
        "--num-large-noise", type=int, default=16384, help="noises for |r| at sigma > 10 in all (default %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "paper_cifar10.json")
    options = parser.parse_args()

    denoiser = geodiff.OptimalDenoiser(options.data)
    generator = torch.Generator().manual_seed(options.seed)
    unit = torch.randn(options.num, *denoiser.shape, generator=generator)
    began = time.perf_counter()
    whole = geodiff.sample(denoiser, 80 * unit, geodiff.schedules.karras(21), "euler", progress=True)
    seconds = time.perf_counter() - began
    norms = [geometry.magnitude(whole.denoised[whole.sigmas[:-1] > LARGE_NOISE])]
    while (missing := options.num_large_noise - sum(found.shape[1] for found in norms)) > 0:
        noise = 80 * torch.randn(min(missing, options.num), *denoiser.shape, generator=generator)
        levels = whole.sigmas[: len(norms[0]) + 1]
        norms.append(geometry.magnitude(geodiff.sample(denoiser, noise, levels, "euler", progress=True).denoised))
    large_noise = torch.cat(norms, 1)
    # The step from 0.002 to 0 is there for its evaluation, r at 0.002; the sampling trajectory ends at 0.002.
    trajectory = Trajectory(whole.sigmas[:-1], whole.states[:-1], whole.denoised[:-1])

    curves = {
        "norm_r": geometry.magnitude(whole.denoised),
        "norm_x": geometry.magnitude(trajectory.states),
        "deviation_x": geometry.deviation(trajectory.states),
        "deviation_r": geometry.deviation(whole.denoised),
        "distance_to_end_x": geometry.distance_to_end(trajectory.states),
        "distance_to_end_r": geometry.distance_to_end(whole.denoised),
        "norm_eps": geometry.direction_magnitude(whole),
        "cosine_eps_to_end": geometry.cosines(trajectory),
    }
    projection = {name: geometry.project(path) for name, path in (("x", trajectory.states), ("r", whole.denoised))}
    d = unit[0].numel()
    clean = geodiff.reference.model_space(denoiser.data[: options.num], torch.float32)
    result = {
        **record.document("optimal denoiser, Euler on 21 Karras levels 80 .. 0.002"),
        "N": len(denoiser.data),
        "d": d,
        "B": options.num,
        "seed": options.seed,
        "evaluations": int(whole.metadata["evaluations"]),
        "seconds": round(seconds, 2),
        "backend": denoiser.backend,
        "sigmas": trajectory.sigmas.tolist(),
        "curves": {name: _band(values) for name, values in curves.items()},
        "straightness_x": _spread(geometry.straightness(trajectory.states)),
        "path_length_over_chord": {
            "x": _spread(geometry.path_length(trajectory.states) / geometry.distance_to_end(trajectory.states)[0]),
            "r": _spread(geometry.path_length(whole.denoised) / geometry.distance_to_end(whole.denoised)[0]),
        },
        "explained_by_chord_and_components": {
            name: {
                "of_all": found.explained.mean(0).tolist(),
                "of_what_the_chord_leaves": found.complement.mean(0).tolist(),
            }
            for name, found in projection.items()
        },
        "curvature": _band(geometry.bending(whole).curvature),
        "thin_shell_at_80": geometry.thin_shell(clean, 80 * unit[: len(clean)], 80.0)._asdict(),
        "beside_published": _beside(trajectory.sigmas.tolist(), curves),
        "norm_r_at_large_noise": _large_noise(trajectory.sigmas.tolist(), large_noise),
    }
    claims = _claims(trajectory.sigmas, curves, result, d)
    result["claims"] = claims
    record.write(options.out, result)
    for claim in claims:
        print(f"{'held' if claim['held'] else 'not '}  {claim['of']}: {claim['claim']}: {claim['measured']}")
    return 0 if all(claim["held"] for claim in claims if claim["of"] == "optimal denoiser") else 1


def _claims(
    sigmas: torch.Tensor, curves: dict[str, torch.Tensor], result: dict[str, Any], d: int
) -> list[dict[str, Any]]:
    """What is stated of these trajectories: claim, measured, held, and of which denoiser it is stated."""
    mean = {name: values.mean(1) for name, values in curves.items()}
    start, eps, cosine = mean["norm_x"][0].item(), mean["norm_eps"], mean["cosine_eps_to_end"].min().item()
    peak = sigmas[mean["deviation_x"].argmax()].item()
    straight = result["straightness_x"]["mean"]
    claims = [
        (
            f"|r| at sigma = {row['sigma']:g} within 6 % of the published {row['published']:g}",
            f"{row['measured']:.3f} +- {row['standard_error']:.3f} ({row['relative']:+.1%})",
            abs(row["relative"]) <= ALLOWED,
        )
        for row in result["norm_r_at_large_noise"]
    ]
    claims += [
        ("the mean deviation of x peaks between sigma = 6 and 13", f"sigma = {peak:.3g}", 5.5 <= peak <= 13),
        ("|x_T| = 80 sqrt(d) within 0.2 %", f"{start:.1f}", abs(start / (80 * math.sqrt(d)) - 1) < 2e-3),
        (
            "|eps| = 55.4 within 1 % at every level but the last",
            f"{eps[:-1].min():.2f} .. {eps[:-1].max():.2f}",
            bool(((eps[:-1] / 55.4 - 1).abs() < 0.01).all()),
        ),
        ("mean cos(eps, x - x_end) >= .996 at every level", f"lowest {cosine:.4f}", cosine >= 0.996),
        _monotone("d(x, x_end) falls", -mean["distance_to_end_x"]),
        _monotone("d(r, r_end) falls", -mean["distance_to_end_r"]),
        _monotone("|x| falls", -mean["norm_x"]),
        _monotone("|r| rises", mean["norm_r"]),
    ]
    of_network = [
        ("|eps| falls to 38.5 +- 2 at the last level", f"{eps[-1]:.2f}", abs(eps[-1] - 38.5) < 2),
        ("mean max dev x / |x_T| = .0032 +- .0002", f"{straight:.5f}", abs(straight - 0.0032) < 2e-4),
    ]
    made = [(*claim, "optimal denoiser") for claim in claims] + [(*claim, "network") for claim in of_network]
    return [dict(zip(("claim", "measured", "held", "of"), (c, m, bool(h), o), strict=True)) for c, m, h, o in made]


def _monotone(what: str, rising: torch.Tensor) -> tuple[str, str, bool]:
    """Whether a mean curve rises at every step; less than STILL back is standing still."""
    back = max((-rising.diff()).max().item(), 0.0)
    return f"{what} on average at every step, to {STILL:g}", f"largest step back {back:.2g}", back <= STILL


def _large_noise(sigmas: list[float], norms: torch.Tensor) -> list[dict[str, float]]:
    """Mean |r| at the published levels of large noise, over all the noises that came so far."""
    rows = []
    for sigma, published, *_ in PUBLISHED:
        if sigma > LARGE_NOISE:
            found = norms[_nearest(sigmas, sigma)]
            mean = found.mean().item()
            rows.append(
                {
                    "sigma": sigma,
                    "published": published,
                    "measured": mean,
                    "relative": mean / published - 1,
                    "standard_error": found.std().item() / math.sqrt(len(found)),
                    "B": len(found),
                }
            )
    return rows


def _beside(sigmas: list[float], curves: dict[str, torch.Tensor]) -> list[dict[str, Any]]:
    """The published levels, each with published and measured means, and their 90 % bands."""
    rows = []
    for sigma, *published in PUBLISHED:
        level = _nearest(sigmas, sigma)
        row: dict[str, Any] = {"sigma": sigma}
        for name, value in zip(("norm_r", "deviation_x", "deviation_r"), published, strict=True):
            found = curves[name][level : level + 1]
            band = geometry.band(found)
            row[name] = {
                "published": value,
                "measured": band.mean.item(),
                "low": band.low.item(),
                "high": band.high.item(),
            }
        rows.append(row)
    return rows


def _nearest(sigmas: list[float], sigma: float) -> int:
    return min(range(len(sigmas)), key=lambda index: abs(sigmas[index] - sigma))


def _band(values: torch.Tensor) -> dict[str, list[float]]:
    """mean, std, 5 % and 95 % quantiles over the noises, one number for each level."""
    return {
        name: [float(f"{number:.6g}") for number in column.tolist()]
        for name, column in geometry.band(values)._asdict().items()
    }


def _spread(values: torch.Tensor) -> dict[str, float]:
    """mean, std, low and high of one number per noise."""
    return {name: column.item() for name, column in geometry.band(values[None])._asdict().items()}


if __name__ == "__main__":
    sys.exit(main())
