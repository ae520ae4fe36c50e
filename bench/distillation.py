"""Students beside their teacher: the table of docs/distillation.md, as JSON.

geodiff train --distill kd --out out/kd; ...; python bench/distillation.py out/kd out/pd ... --out NAME.json
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from geodiff import learned
from geodiff.base.files import atomic_path
from geodiff.data import load
from geodiff.denoiser.module import OptimalDenoiser
from geodiff.measure import machine
from geodiff.measure.students import compare


def main() -> None:
    """Prints a line for each student and writes all of them, the machine beside them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER", help="what geodiff train --distill wrote")
    parser.add_argument("--data", default="mnist5k")
    parser.add_argument("--num", type=int, default=1000)
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    dataset = load(chosen.data)
    rows = []
    for folder in chosen.folders:
        student = learned.load_network(folder / "weights.safetensors")
        origin = student.training_metadata
        named = str(origin["teacher"])
        teacher = OptimalDenoiser(dataset.data) if named == "optimal" else learned.load(named)
        last = json.loads((folder / "log.jsonl").read_text(encoding="utf-8").splitlines()[-1])
        found = asdict(compare(student, teacher, dataset, num=chosen.num))
        rows.append({"settings": origin, "training_seconds": last["seconds"], **found})
        print(f"{origin['distill']}: {json.dumps(found)}", flush=True)
    if chosen.out is not None:
        document = {"data": dataset.name, "num": chosen.num, "students": rows, "machine": machine.describe()}
        with atomic_path(chosen.out) as temporary:
            temporary.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
