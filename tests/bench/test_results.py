"""bench/README.md lists the results that there are, and the scripts."""

import re
from pathlib import Path

BENCH = Path(__file__).resolve().parents[2] / "bench"
LISTED = (BENCH / "README.md").read_text(encoding="utf-8")


def test_every_result_is_listed_and_every_one_listed_is_there() -> None:
    there = {path.name for path in (BENCH / "results").iterdir()}
    assert set(re.findall(r"`(\w+\.json)`", LISTED)) == there


def test_every_script_is_listed() -> None:
    scripts = {path.name for path in BENCH.iterdir() if path.suffix in (".py", ".sh")} - {"test_denoiser_speed.py"}
    assert scripts <= set(re.findall(r"`(\w+\.(?:py|sh))\b", LISTED))
