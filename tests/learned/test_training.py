"""Training: it learns, and a run that was stopped ends as one that was not."""

import json
from pathlib import Path

import pytest
import torch

from geodiff import learned
from geodiff.base.errors import DataError
from geodiff.data import load
from geodiff.learned import Training, train

DIGITS = load("digits").data
QUICK = Training(steps=6, batch=8, width=8)


class Stop(Exception):
    """What interrupts a run here."""


def stopped_after(steps: int, out: Path, training: Training) -> None:
    def progress(step: int, loss: float) -> None:
        if step == steps:
            raise Stop

    with pytest.raises(Stop):
        train(DIGITS, out, training, save_every=2, progress=progress)


def lines(out: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text(encoding="utf-8").splitlines()]


def test_a_stopped_run_ends_as_one_that_was_not(tmp_path: Path) -> None:
    whole = train(DIGITS, tmp_path / "whole", QUICK, name="digits", save_every=2)
    stopped_after(3, tmp_path / "parts", QUICK)  # the checkpoint is of step 2: step 3 is done again
    assert [line["step"] for line in lines(tmp_path / "parts")] == [2]
    resumed = train(DIGITS, tmp_path / "parts", QUICK, name="digits", save_every=2)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    ours, theirs = lines(tmp_path / "whole"), lines(tmp_path / "parts")
    assert [line["step"] for line in theirs] == [2, 4, 6]
    assert [line["loss"] for line in ours] == [line["loss"] for line in theirs]
    files = [(tmp_path / folder / "weights.safetensors").read_bytes() for folder in ("whole", "parts")]
    assert files[0] == files[1]


def test_a_finished_run_is_not_run_again(tmp_path: Path) -> None:
    train(DIGITS, tmp_path, QUICK)
    before = (tmp_path / "log.jsonl").read_text(encoding="utf-8")
    train(DIGITS, tmp_path, QUICK, progress=lambda step, loss: pytest.fail("a step was taken"))
    assert (tmp_path / "log.jsonl").read_text(encoding="utf-8") == before


def test_a_torn_log_line_is_dropped(tmp_path: Path) -> None:
    stopped_after(3, tmp_path, QUICK)
    with (tmp_path / "log.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 3, "lo')
    network = train(DIGITS, tmp_path, QUICK, save_every=2)
    assert [line["step"] for line in lines(tmp_path)] == [2, 4, 6]
    # It says of itself what the one that is loaded says.
    assert network.training_metadata == learned.load(tmp_path / "weights.safetensors").training_metadata != {}


def test_other_settings_data_and_damage_are_refused(tmp_path: Path) -> None:
    train(DIGITS, tmp_path, QUICK)
    with pytest.raises(ValueError, match=r"^seed: expected 0 .* found 1"):
        train(DIGITS, tmp_path, Training(steps=6, batch=8, width=8, seed=1))
    with pytest.raises(ValueError, match=r"^data: expected shape \[1797"):
        train(DIGITS[:100], tmp_path, QUICK)
    (tmp_path / "checkpoint.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(DataError, match="checkpoint"):
        train(DIGITS, tmp_path, QUICK)


def test_bad_arguments_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^data: expected pictures"):
        train(torch.zeros(4, 3), tmp_path, QUICK)
    with pytest.raises(ValueError, match=r"^wide: expected a number in range, found 1.5; allowed 0 <= wide <= 1$"):
        Training(wide=1.5)
    with pytest.raises(TypeError, match=r"^ema: expected a real number, found str"):
        Training(ema="0.5")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^steps: "):
        Training(steps=0)


def test_it_learns(tmp_path: Path) -> None:
    quick = Training(steps=120, batch=16, width=16, patch=1, learning_rate=6e-3, ema=0.9, wide=0.0)
    train(DIGITS[:8], tmp_path, quick, save_every=20)
    losses = [float(str(line["loss"])) for line in lines(tmp_path)]
    assert losses[-1] < 0.6 * losses[0], losses
    for source in (tmp_path, tmp_path / "weights.safetensors"):
        assert learned.load(source).training_metadata["step"] == 120
    (tmp_path / "nothing").mkdir()
    with pytest.raises(FileNotFoundError, match=r"nothing.weights\.safetensors: expected weights"):
        learned.load(tmp_path / "nothing")
