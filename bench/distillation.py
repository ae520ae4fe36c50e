"""Students beside their teacher: the table of docs/distillation.md, as JSON, and its picture.

geodiff train --distill kd --out out/kd; ...; python bench/distillation.py out/kd ... --out A.json --picture A.png
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from geodiff import learned
from geodiff.base.denoiser_type import Denoiser
from geodiff.data import load
from geodiff.denoiser.module import OptimalDenoiser
from geodiff.learned.distillation import generate
from geodiff.measure import record
from geodiff.measure.students import compare
from geodiff.output.pictures import save_columns
from geodiff.schedules import karras
from geodiff.solvers import sample

_SHOWN = 8


def main() -> None:
    """Prints a line for each student and writes all of them, the machine beside them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER", help="what geodiff train --distill wrote")
    parser.add_argument("--data", default="mnist5k")
    parser.add_argument("--num", type=int, default=1000)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--picture", type=Path)
    chosen = parser.parse_args()
    dataset = load(chosen.data)
    noise = 80.0 * torch.randn(_SHOWN, *dataset.data.shape[1:], generator=torch.Generator().manual_seed(77))
    rows: list[dict[str, object]] = []
    columns: dict[str, Tensor] = {}
    for folder in chosen.folders:
        student = learned.load_network(folder / "weights.safetensors")
        origin = student.training_metadata
        named = str(origin["teacher"])
        teacher = OptimalDenoiser(dataset.data) if named == "optimal" else learned.load(named)
        last = json.loads((folder / "log.jsonl").read_text(encoding="utf-8").splitlines()[-1])
        found = asdict(compare(student, teacher, dataset, num=chosen.num))
        columns[str(origin["distill"]).upper()] = generate(student, noise)
        columns[f"teacher ({named})"] = _ends(teacher, noise)
        rows.append({"settings": origin, "training_seconds": last["seconds"], **found})
        print(f"{origin['distill']}: {json.dumps(found)}", flush=True)
    if chosen.out is not None:
        what = "bench/distillation.py: students beside their teacher"
        record.write(chosen.out, record.document(what, data=dataset.name, num=chosen.num, students=rows))
    if chosen.picture is not None:
        teachers = [name for name in columns if name.startswith("teacher")]
        last = {name: columns.pop(name) for name in teachers}
        save_columns(chosen.picture, {**columns, **last}, title="1 evaluation (PD: 4); the teacher 35")


def _ends(teacher: Denoiser, noise: Tensor) -> Tensor:
    return sample(teacher, noise, karras(18), "heun", keep="end").states[-1]


if __name__ == "__main__":
    main()
