"""Files are whole or not there."""

import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from geodiff.base.errors import DataError
from geodiff.base.files import atomic_path


def test_a_new_file_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "image.png"
    with atomic_path(target) as path:
        assert path.parent == tmp_path
        assert path.suffix == ".png"
        path.write_text("new")
        assert not target.exists()
    assert target.read_text() == "new"
    assert os.listdir(tmp_path) == ["image.png"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("written", [False, True])
def test_an_exception_leaves_what_was_there(error: type[BaseException], written: bool, tmp_path: Path) -> None:
    target = tmp_path / "image.png"
    target.write_text("old")

    def interrupted() -> None:
        with atomic_path(target) as path:
            if written:
                path.write_text("half")
            raise error

    with pytest.raises(error):
        interrupted()
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["image.png"]


def test_an_old_file_is_replaced(tmp_path: Path) -> None:
    target = tmp_path / "a"
    target.write_text("old")
    with atomic_path(str(target)) as path:
        path.write_text("new")
    assert target.read_text() == "new"


def test_a_link_keeps_pointing_to_its_file(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    target, link = tmp_path / "elsewhere" / "file", tmp_path / "link"
    target.write_text("old")
    link.symlink_to(target)
    with atomic_path(link) as path:
        path.write_text("new")
    assert link.is_symlink()
    assert target.read_text() == "new"


def test_permissions_are_those_of_any_new_file(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "atomic") as path:
        path.write_text("")
    (tmp_path / "plain").write_text("")
    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(FileNotFoundError, match=r"file\.png: .* found no folder .*missing"),
        atomic_path(tmp_path / "missing" / "file.png"),
    ):
        pytest.fail("the body ran")


def test_a_folder_is_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError, match="found a folder"), atomic_path(tmp_path):
        pytest.fail("the body ran")


def test_ctrl_c_leaves_no_half_written_file(tmp_path: Path) -> None:
    program = (
        "import sys, time\n"
        "from geodiff.base.files import atomic_path\n"
        f"with atomic_path({str(tmp_path / 'out.bin')!r}) as path:\n"
        "    path.write_bytes(b'half')\n"
        "    print('writing', flush=True)\n"
        "    while True:\n"  # a signal just before a sleep begins waits for its end: short ones
        "        time.sleep(0.01)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"writing\n"
        assert len(os.listdir(tmp_path)) == 1
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
        assert process.returncode != 0
    assert os.listdir(tmp_path) == []


def test_data_errors_survive_a_worker_process() -> None:
    error = pickle.loads(pickle.dumps(DataError("train.npy", "ends after 3 of 5 points")))
    assert str(error) == "train.npy: ends after 3 of 5 points"
    assert (error.name, error.reason) == ("train.npy", "ends after 3 of 5 points")


def test_permissions_are_those_of_any_file(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    with atomic_path(tmp_path / "ours") as temporary:
        temporary.unlink()
        temporary.touch(mode=0o600)  # as safetensors does
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode
