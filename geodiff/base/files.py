"""Files that are whole or not there: write beside the target, then rename."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path` to write to; on success rename it to `path`, on any exception remove it.

    An old file at `path` stays as it is until the new one is whole, also when Ctrl-C comes in between. The temporary
    name is hidden and keeps the suffix, by which many writers choose a format. The folder must exist.
    Raises FileNotFoundError or IsADirectoryError before anything is written.
    """
    target = Path(os.path.realpath(path))  # through a link, to the file itself: a rename would replace the link
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{path}: expected a file in an existing folder, found no folder {target.parent}")
    if target.is_dir():
        raise IsADirectoryError(f"{path}: expected the name of a file, found a folder")
    # Not tempfile: it makes files that only their owner may read, and the rename would keep that.
    temporary = target.with_name(f".{target.stem}.{secrets.token_hex(4)}.part{target.suffix}")
    try:
        temporary.touch()  # with the permissions that the user's files have; some writers would make it private
        mode = temporary.stat().st_mode
        yield temporary
        temporary.chmod(mode)
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
