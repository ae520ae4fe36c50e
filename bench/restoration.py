"""Every method of restoration with each prior on held-out digits: the table of docs/inverse.md, as JSON.

python bench/restoration.py --out bench/results/restoration_mnist5k.json [--num 100] [--prior optimal ...]
"""

import argparse
from pathlib import Path

import torch

from geodiff.data import load
from geodiff.measure import record
from geodiff.measure.restoration import EXACT, METHODS, TASKS, Case, Setting, psnr, restore
from geodiff.reference.formula import model_space


def main() -> None:
    """Prints a line for each cell and writes all of them, the machine beside them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="mnist5k")
    parser.add_argument("--num", type=int, default=100)
    parser.add_argument("--prior", action="append")
    parser.add_argument("--method", action="append")
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    dataset = load(chosen.data)
    tasks = []
    for task in TASKS:
        case = Case(dataset, Setting(task=task, num=chosen.num))
        nearest = model_space(case.known[case.exact.nearest], torch.float32)
        scores = {
            "task": task,
            "psnr_adjoint": psnr(case.problem.adjoint(), case.truth),
            "psnr_exact": psnr(case.exact.mean, case.truth),
            "psnr_nearest": psnr(nearest, case.truth),
            "ess": float(case.exact.ess.median()),
        }
        print(scores, flush=True)
        rows = []
        for prior in chosen.prior or ["optimal", "mnist5k-held100"]:
            denoiser = case.prior(prior)
            for method in chosen.method or METHODS:
                rows.append({"prior": prior, **restore(case, method, denoiser).summary()})
                print(f"{task}, {prior}, {method}: {rows[-1]['psnr']:.2f} dB", flush=True)
        tasks.append({**scores, "exact": restore(case, EXACT, lambda x, sigma: x).summary(), "methods": rows})
    if chosen.out is not None:
        what = "bench/restoration.py: PSNR and SSIM of each method with each prior"
        record.write(chosen.out, record.document(what, data=dataset.name, num=chosen.num, sigma=0.05, tasks=tasks))


if __name__ == "__main__":
    main()
