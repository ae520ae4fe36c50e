"""Each example runs as it is, is short, and says what it should."""

import re
import runpy
import sys
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).parents[2] / "examples"

#: example -> (package that it needs, what each line of its output must match)
EXAMPLES: dict[str, tuple[str | None, list[str]]] = {
    "local_denoisers.py": (
        None,
        [
            *[r"(optimal|LS|network): 8 samples, 10 levels in [\d.]+ s"] * 3,
            r"optimal: 0\.00 from the nearest digit, correlation with the network 0\.[56]\d",
            r"LS: 1[12]\.\d\d from the nearest digit, correlation with the network 0\.[78]\d",
            r"network: 1[12]\.\d\d from the nearest digit, correlation with the network 1\.00",
        ],
    ),
    "mean_shift.py": (
        None,
        [r"sigma [\d.]+: \d+ modes from 300 starts"] * 5 + [r"annealed: 64 of 64 noises converged"],
    ),
    "with_azula.py": ("azula", [r"(DDIM|Heun)Sampler: 64 of 64 samples"] * 2),
    "with_diffusers.py": ("diffusers", [r"\w+Scheduler: 64 of 64 samples are data points"] * 4),
    "with_diffusers_unet.py": ("diffusers", [r"sigma +[\d.]+: \|learned - optimal\| = [\d.]+"] * 10),
    "with_diffusers_flow.py": ("diffusers", [r"largest difference .*: \d\.\de-(0[5-9]|1\d)"]),
    "with_edm.py": (None, [r"64 of 64 samples are data points of the class"]),
    "with_flow_matching.py": ("flow_matching", [r"largest difference .*: \d\.\de-(0[5-9]|1\d)"]),
    "with_k_diffusion.py": ("k_diffusion", [r"sample_\w+: 6[1-4] of 64 samples end on the same data point"] * 4),
    "with_torchcfm.py": ("torchcfm", [r"t = 0\.\d: least loss \d\.\d+, of targets of mean square 1\.\d+"] * 5),
    "with_torchdiffeq.py": (
        "torchdiffeq",
        [r"noise left .*; after the jump: ", r"6[1-4] of 64 samples end on the same"],
    ),
}


def test_no_example_is_left_out() -> None:
    assert sorted(path.name for path in FOLDER.glob("*.py")) == sorted(EXAMPLES)


@pytest.mark.parametrize("name", [name for name, (package, _) in EXAMPLES.items() if package is not None])
def test_a_missing_package_is_one_line(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    package, _ = EXAMPLES[name]
    assert package is not None
    for module in [package, *(module for module in sys.modules if module.startswith(f"{package}."))]:
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules, f"geodiff.adapters.{package}", raising=False)
    with pytest.raises(SystemExit, match=rf"^[^\n]*{package}[^\n]*; pip install [^\n]+$"):
        runpy.run_path(str(FOLDER / name), run_name="__main__")


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")  # diffusers
@pytest.mark.parametrize("name", EXAMPLES)
def test_example(name: str, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> None:
    package, expected = EXAMPLES[name]
    if package is not None:
        request.getfixturevalue(package)  # or a skip that says what to install
    path = FOLDER / name
    assert len(path.read_text().splitlines()) <= 30
    torch.set_num_threads(1)  # they are small
    runpy.run_path(str(path), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(expected)
    for line, pattern in zip(lines, expected, strict=True):
        assert re.match(pattern, line), line
