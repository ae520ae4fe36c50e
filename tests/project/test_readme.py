"""What README.md shows must run: its Python, and the commands and targets it names."""

import re
from pathlib import Path

import torch

from geodiff.cli.commands import COMMANDS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_python_of_the_readme_runs() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), names)
    images, data = names["images"], names["data"]
    assert isinstance(images, torch.Tensor)
    assert isinstance(data, torch.Tensor)
    assert images.shape == (64, 1, 28, 28)
    index = torch.cdist(images.flatten(1), data.flatten(1) / 127.5 - 1).argmin(1)
    assert ((images - (data[index] / 127.5 - 1)).flatten(1).norm(dim=1) < 1e-2).all(), (
        "the optimal denoiser's samples are points of the data"
    )


def test_commands_and_targets_of_the_readme_exist() -> None:
    commands = set(re.findall(r"^geodiff (\w+)", README, re.MULTILINE))
    assert commands
    assert commands <= set(COMMANDS)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"make ([a-z-]+)", README))
    assert {"demo", "test"} <= targets
    assert targets <= set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
