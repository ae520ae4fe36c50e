"""Files that are whole or not there: write beside the target, then rename."""

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path` to write to; on success rename it to `path`, on any exception remove it.

    An old file at `path` stays as it is until the new one is whole, also when Ctrl-C comes in between. The temporary
    name is hidden and keeps the suffix, by which many writers choose a format. The folder must exist. What a process
    that was killed has left is removed.
    Raises FileNotFoundError or IsADirectoryError before anything is written, and OSError that names `path` and says why
    where it cannot be written, whatever the writer itself raises.
    """
    target = Path(os.path.realpath(path))  # through a link, to the file itself: a rename would replace the link
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{path}: expected a file in an existing folder, found no folder {target.parent}")
    if target.is_dir():
        raise IsADirectoryError(f"{path}: expected the name of a file, found a folder")
    remove_abandoned(target)
    # Not tempfile: it makes files that only their owner may read, and the rename would keep that.
    temporary = target.with_name(f".{target.stem}.{os.getpid()}-{secrets.token_hex(4)}.part{target.suffix}")
    try:
        temporary.touch()  # with the permissions that the user's files have; some writers would make it private
        mode = temporary.stat().st_mode
        yield temporary
        temporary.chmod(mode)
        os.replace(temporary, target)
    except BaseException as error:
        reason = _reason(error, temporary)
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if reason is None:
            raise
        raise OSError(reason.errno, reason.strerror, os.fspath(path)) from error


def remove_abandoned(target: Path) -> None:
    """Removes temporary files of this target whose process is gone, as after `kill -9`."""
    if os.name != "posix":  # elsewhere there is no harmless way to ask whether a process lives
        return
    name = re.compile(rf"\.{re.escape(target.stem)}\.(\d+)-[0-9a-f]{{8}}\.part{re.escape(target.suffix)}")
    for left in target.parent.iterdir():
        if (match := name.fullmatch(left.name)) and not _lives(int(match[1])):
            with suppress(OSError):
                left.unlink()


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # someone else's
        return True
    return True


def _reason(error: BaseException, temporary: Path) -> OSError | None:
    """Why the temporary file cannot be written, if that is what `error` says; None: it is about something else."""
    if isinstance(error, OSError) and error.errno is not None:
        ours = error.filename is None or os.fspath(error.filename) == os.fspath(temporary)
        return error if ours else None
    # NumPy, PyTorch and safetensors say in words of their own, and by types of their own, that a file could not be
    # written, not why: the system is asked again.
    written = isinstance(error, OSError) or any(
        name in str(error) for name in ("PytorchStreamWriter", "inline_container")
    )
    if not (written or type(error).__name__ == "SafetensorError"):
        return None
    try:
        with open(temporary, "ab", buffering=0) as file:
            for _ in range(8):
                file.write(bytes(2**16))
    except OSError as found:
        return found
    return OSError(0, " ".join(str(error).split()))
