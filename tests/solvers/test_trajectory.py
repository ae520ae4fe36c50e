"""A trajectory comes back from its file as it went in, and a file that is not one is refused by name and reason."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor

from geodiff.base.errors import DataError
from geodiff.solvers import trajectory as module
from geodiff.solvers.trajectory import Trajectory


def trajectory(dtype: torch.dtype = torch.float32) -> Trajectory:
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(4, 3, 2, 5, generator=generator).to(dtype)
    denoised = torch.randn(3, 3, 2, 5, generator=generator).to(dtype)
    return Trajectory(
        torch.tensor([80.0, 1.0, 0.1, 0.0]).double(), states, denoised, {"solver": "heun", "version": "my own"}
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_round_trip(dtype: torch.dtype, tmp_path: Path) -> None:
    path, saved = tmp_path / "trajectory.safetensors", trajectory(dtype)
    saved.save(path)
    loaded = Trajectory.load(path)
    for name in ("sigmas", "states", "denoised"):
        assert getattr(loaded, name).dtype == getattr(saved, name).dtype
        assert torch.equal(getattr(loaded, name), getattr(saved, name)), name
    assert loaded.metadata == saved.metadata
    assert os.listdir(tmp_path) == ["trajectory.safetensors"]


def test_round_trip_by_a_plain_string_without_metadata_of_an_empty_batch(tmp_path: Path) -> None:
    path = str(tmp_path / "empty.safetensors")
    Trajectory(torch.tensor([1.0, 0.0]), torch.zeros(2, 0, 3), torch.zeros(1, 0, 3)).save(path)
    loaded = Trajectory.load(path, device=torch.device("cpu"))
    assert loaded.states.shape == (2, 0, 3)
    assert loaded.metadata == {}


def test_strided_tensors_that_require_grad_are_saved(tmp_path: Path) -> None:
    path, plain = tmp_path / "t.safetensors", trajectory()
    states = plain.states.transpose(2, 3).contiguous().transpose(2, 3).requires_grad_()
    Trajectory(plain.sigmas, states, plain.denoised).save(path)
    assert torch.equal(Trajectory.load(path).states, plain.states)


def test_other_tools_can_read_the_file(tmp_path: Path) -> None:
    path, saved = tmp_path / "t.safetensors", trajectory()
    saved.save(path)
    tensors = safetensors.torch.load_file(path)
    assert sorted(tensors) == ["denoised", "sigmas", "states"]
    assert torch.equal(tensors["states"], saved.states)


def test_an_interrupted_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, saved = tmp_path / "t.safetensors", trajectory()
    saved.save(path)

    def interrupted(tensors: dict[str, Tensor], filename: Path, metadata: dict[str, str]) -> None:
        filename.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "save_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        trajectory(torch.float64).save(path)
    assert torch.equal(Trajectory.load(path).states, saved.states)
    assert os.listdir(tmp_path) == ["t.safetensors"]


def cut_in_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def cut_in_the_header(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:20])


def spoil_the_header(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[10:20] = b"\xff" * 10
    path.write_bytes(content)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def other_file(path: Path) -> None:
    path.write_text("sigma,x\n80,1\n")


def other_tensors(path: Path) -> None:
    safetensors.torch.save_file({"weight": torch.zeros(3)}, path)


def missing_tensor(path: Path) -> None:
    safetensors.torch.save_file({"sigmas": torch.ones(2)}, path, {"geodiff.trajectory.version": "1"})


def other_version(path: Path) -> None:
    safetensors.torch.save_file({"sigmas": torch.ones(2)}, path, {"geodiff.trajectory.version": "99"})


def other_shapes(path: Path) -> None:
    tensors = {"sigmas": torch.ones(2), "states": torch.ones(3, 1, 1), "denoised": torch.ones(1, 1, 1)}
    safetensors.torch.save_file(tensors, path, {"geodiff.trajectory.version": "1"})


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (cut_in_half, "damaged or truncated"),
        (cut_in_the_header, "damaged or truncated"),
        (spoil_the_header, "damaged or truncated"),
        (empty, "damaged or truncated"),
        (other_file, "damaged or truncated"),
        (other_tensors, "not a trajectory"),
        (missing_tensor, "damaged or truncated .*states"),
        (other_version, "version 99"),
        (other_shapes, "states: expected shape"),
    ],
)
def test_a_damaged_file_is_named_with_the_reason(damage: Callable[[Path], None], reason: str, tmp_path: Path) -> None:
    path = tmp_path / "night-run.safetensors"
    trajectory().save(path)
    damage(path)
    with pytest.raises(DataError, match=rf"night-run\.safetensors: .*{reason}"):
        Trajectory.load(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing\.safetensors: expected .* found no such file"):
        Trajectory.load(tmp_path / "nothing.safetensors")


@pytest.mark.parametrize(
    ("name", "sigmas", "states", "denoised"),
    [
        ("sigmas", (), (2, 1, 1), (1, 1, 1)),
        ("sigmas", (1,), (1, 1, 1), (0, 1, 1)),
        ("sigmas", (2, 1), (2, 1, 1), (1, 1, 1)),
        ("states", (3,), (2, 1, 1), (2, 1, 1)),
        ("states", (2,), (2,), (1,)),
        ("denoised", (3,), (3, 1, 1), (3, 1, 1)),
        ("denoised", (3,), (3, 1, 4), (2, 1, 5)),
    ],
)
def test_shapes_that_do_not_fit_are_named(name: str, sigmas: list[int], states: list[int], denoised: list[int]) -> None:
    with pytest.raises(ValueError, match=rf"^{name}: expected .* found .*; allowed "):
        Trajectory(torch.ones(sigmas), torch.ones(states), torch.ones(denoised))


def test_metadata_must_be_text(tmp_path: Path) -> None:
    bad = trajectory()
    bad.metadata["seed"] = 3  # type: ignore[assignment]
    with pytest.raises(TypeError, match=r"^metadata: expected text, found 'seed': 3"):
        bad.save(tmp_path / "t.safetensors")
    assert os.listdir(tmp_path) == []


def test_it_prints_in_a_line() -> None:
    made = Trajectory(torch.tensor([2.0, 1.0]), torch.zeros(2, 3, 64), torch.zeros(1, 3, 64), {"solver": "euler"})
    expected = "Trajectory(sigmas=float32 [2], states=float32 [2, 3, 64], denoised=float32 [1, 3, 64], "
    assert repr(made) == expected + "metadata={'solver': 'euler'})"
    end = Trajectory(torch.tensor([2.0, 1.0]), torch.zeros(1, 3, 64), None)  # type: ignore[arg-type]
    assert "denoised=None" in repr(end)
