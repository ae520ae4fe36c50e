"""What training runs share: how the learning rate falls, and a log whose lines belong to steps that are kept."""

import json
import math
from pathlib import Path

from geodiff.base.files import atomic_path


def cosine_rate(step: int, steps: int) -> float:
    """Up along a line over the first 2%, then down to 0 along half a cosine."""
    warm = max(1, steps // 50)
    return min(1.0, (step + 1) / warm) * (1 + math.cos(math.pi * step / steps)) / 2


def write_log(log: Path, lines: str) -> None:
    """The log, whole."""
    with atomic_path(log) as temporary:
        temporary.write_text(lines, encoding="utf-8")


def lines_until(log: Path, step: int) -> str:
    """The lines of the log up to this step; a torn last line is of a later one."""
    if not log.is_file():
        return ""
    kept = []
    for line in log.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except (ValueError, KeyError):
            break
    return "".join(kept)
