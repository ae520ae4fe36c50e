"""Principal coordinates of a mapped file: made once, kept beside it, and the same when they are read."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import geodiff
from geodiff.backends import cpu, principal_coordinates, sidecar_file
from geodiff.backends.cpu import CpuEngine

N, D = 24_000, 1_452  # enough numbers: csrc/cpu/products/shaping.cpp, worth_shaping


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Points along a few lines, with noise."""
    random = np.random.default_rng(0)
    rows = random.standard_normal((N, 12)).astype(np.float32) @ random.standard_normal((12, D)).astype(np.float32)
    rows = 9 * rows + 12 * random.standard_normal((N, D), dtype=np.float32) + 128
    path = tmp_path_factory.mktemp("mapped") / "data.npy"
    np.save(path, np.clip(rows, 0, 255).astype(np.uint8))
    return path


@pytest.fixture(autouse=True)
def small_files_count(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sidecar_file, "WORTH", 1)
    for one in kept(path):
        one.unlink()


@pytest.fixture(autouse=True)
def calls_want_them() -> Iterator[None]:
    """With AMX calls of many queries make none."""
    with cpu.use_isa([isa for isa in cpu.isas() if isa != "avx512_amx"][-1]):
        yield


def kept(path: Path) -> list[Path]:
    return sorted(path.parent.glob("*.geodiff-coordinates"))


def opened(path: Path) -> geodiff.OptimalDenoiser:
    return geodiff.OptimalDenoiser(geodiff.data.load(path).data, backend="cpu")


def is_shaped(denoiser: geodiff.OptimalDenoiser) -> bool:
    engine = denoiser._points.engines.serving()
    assert isinstance(engine, CpuEngine)
    return bool(engine._data.shaped)


def queries(batch: int, sigma: float) -> Tensor:
    return sigma * torch.randn(batch, D, generator=torch.Generator().manual_seed(0))


def test_they_are_read_as_they_were_made(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x, first = queries(20, 30.0), opened(path)
    answer = first(x, 30.0)
    assert is_shaped(first)
    assert len(kept(path)) == 1
    with monkeypatch.context() as patched:
        patched.setattr(sidecar_file.SidecarFile, "write", lambda *_: pytest.fail("they are there"))
        again = opened(path)
        assert not is_shaped(again)
        assert torch.equal(again(x, 30.0), answer)
        assert is_shaped(again)
    assert torch.equal(opened(path).prepare()(x, 30.0), answer)
    in_memory = geodiff.OptimalDenoiser(geodiff.data.load(path).data.clone(), backend="cpu")
    assert torch.equal(in_memory(x, 30.0), answer)


def test_who_does_not_want_them_makes_none(path: Path) -> None:
    denoiser = opened(path)
    denoiser(queries(1, 30.0), 30.0)
    near = denoiser.data[:20].float() / 127.5 - 1 + queries(20, 0.05)
    denoiser(near, 0.05)  # screened, every one
    assert not is_shaped(denoiser)
    assert kept(path) == []


def test_many_screened_calls_make_them(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """kPassesWorthShaping in csrc/cpu/products/shaping.h; no bit changes when they come."""
    denoiser = opened(path)
    near = denoiser.data[:1].float() / 127.5 - 1 + queries(1, 0.05)
    first = denoiser(near, 0.05)
    for _ in range(255):
        denoiser(queries(1, 30.0), 30.0)  # screens nothing
        denoiser(near, 0.05)
    assert not is_shaped(denoiser)
    assert torch.equal(denoiser(near, 0.05), first)
    assert is_shaped(denoiser)
    assert torch.equal(denoiser(near, 0.05), first)
    assert len(kept(path)) == 1
    again = opened(path)
    with monkeypatch.context() as patched:
        patched.setattr(sidecar_file.SidecarFile, "write", lambda *_: pytest.fail("they are there"))
        for _ in range(principal_coordinates.SINGLE_CALLS + 1):
            assert not is_shaped(again)
            assert torch.equal(again(near, 0.05), first)
    assert is_shaped(again)


def test_with_amx_too(path: Path) -> None:
    if "avx512_amx" not in cpu.isas():
        pytest.skip("no AMX")
    with cpu.use_isa("avx512_amx"):
        for batch in (1, 20):
            denoiser = geodiff.OptimalDenoiser(np.load(path), backend="cpu")
            near = denoiser.data[:batch].float() / 127.5 - 1 + queries(batch, 0.05)
            first = denoiser(near, 0.05)
            for _ in range(255):
                denoiser(near, 0.05)
            assert not is_shaped(denoiser)
            answer = denoiser(near, 0.05)
            assert is_shaped(denoiser)
            assert torch.equal(answer, first)


def test_those_of_other_rows_or_damaged_ones_are_made_anew(path: Path, tmp_path: Path) -> None:
    opened(path).prepare()
    (there,) = kept(path)
    other = tmp_path / "other.npy"
    rows = np.load(path)
    rows[:, 0] ^= 1
    np.save(other, rows)
    taken = tmp_path / there.name.replace("data.npy", "other.npy")
    taken.write_bytes(there.read_bytes())
    denoiser = opened(other).prepare()
    x = queries(20, 30.0)
    assert torch.equal(denoiser(x, 30.0), geodiff.OptimalDenoiser(rows, backend="cpu")(x, 30.0))
    assert taken.read_bytes() != there.read_bytes()
    there.write_bytes(there.read_bytes()[:1000])
    assert torch.equal(opened(path)(x, 30.0), geodiff.OptimalDenoiser(np.load(path), backend="cpu")(x, 30.0))
    assert there.stat().st_size > 1000
