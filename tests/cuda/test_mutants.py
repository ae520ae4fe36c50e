"""Barriers and waits that matter: without any one of them, the emulator's tests fail.

Each is taken out of a copy of csrc/cuda, which is compiled and run as the GPU core is. Those named in SPARE may
go: what they keep in order is in order without them.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CALLS = re.compile(
    r"^ *(?:__syncthreads|__syncwarp|cluster_sync|__pipeline_wait_prior|ring\.take|at\.wait_for_room"
    r"|products_wait<\d>|wait)\(.*?\);",
    re.MULTILINE,
)
SOURCES = ("stream.cu", "exact.cu", "settle.cu", "prepare.cu", "block.h")
DENSE = ("dense_logits.cu", "dense_sums.cu", "dense_weights.cu", "dense_pipeline.h")
FUSED = ("fused.cu", "fused_ring.h")
#: (file, how many calls stand before it) -> why it may go.
SPARE = {
    ("stream.cu", 5): "shuffles stand between reading a state and writing it; CUDA says not that they order memory",
    ("exact.cu", 1): "the same",
    (
        "dense_logits.cu",
        3,
    ): "lanes that wait for one which copies come together, as the barrier of a cluster asks of a GPU",
    ("dense_sums.cu", 2): "the same",
    ("fused.cu", 6): "shuffles stand between, as in stream.cu",
    ("fused.cu", 8): "weights that have come are made of the whole tile; on a GPU it makes what was copied seen",
    ("fused_ring.h", 3): "what lanes read of a piece they load together, which brings them together",
}
TESTS = ("test_the_order_of_threads_does_not_matter", "test_contract", "test_every_way_to_lay_a_tile_out")


def mutants() -> list[tuple[str, int]]:
    found = []
    for source in SOURCES + DENSE + FUSED:
        calls = list(CALLS.finditer((ROOT / "csrc/cuda" / source).read_text()))
        found += [(source, number) for number in range(len(calls)) if (source, number) not in SPARE]
    return found


def without(text: str, number: int) -> str:
    call = list(CALLS.finditer(text))[number]
    return text[: call.start()] + ";" + text[call.end() :]


def suite_of(source: str) -> str:
    return "test_dense.py" if source in DENSE else "test_fused.py" if source in FUSED else "test_cuda_kernels.py"


@pytest.mark.heavy
@pytest.mark.parametrize(("source", "number"), mutants())
def test_nothing_works_without_it(source: str, number: int, tmp_path: Path) -> None:
    for folder in ("csrc", "tests"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    target = tmp_path / "csrc/cuda" / source
    target.write_text(without(target.read_text(), number))
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-o", f"pythonpath={ROOT}"]
    done = subprocess.run(
        [*command, f"tests/cuda/{suite_of(source)}", "-k", " or ".join(TESTS)],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 1, done.stdout[-2000:] + done.stderr[-2000:]
    assert re.search(r"\d+ failed", done.stdout), done.stdout[-2000:]


def test_every_barrier_is_among_them() -> None:
    assert len(mutants()) >= 20
    assert set(SPARE) <= {(source, number) for source in SOURCES + DENSE + FUSED for number in range(20)}
