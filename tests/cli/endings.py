"""What a command may leave behind, whatever ended it."""

import json
import subprocess
from pathlib import Path

import torch
from safetensors import safe_open


def last(done: subprocess.CompletedProcess[str]) -> str:
    """The last line that it said of its end, which is no traceback."""
    assert "Traceback" not in done.stderr, done.stderr
    return done.stderr.strip().splitlines()[-1]


def check_files(folder: Path) -> None:
    """Whatever has its final name is whole."""
    for path in folder.rglob("[!.]*"):  # what begins with a dot is on the way
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                assert list(file.keys())
        elif path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".pt":
            torch.load(path, weights_only=True)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of the folder, by name; none where there is no folder."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())} if folder.is_dir() else {}
