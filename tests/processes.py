"""Processes that begin within milliseconds: children of one that has imported PyTorch and geodiff, and nothing else.

An interpreter of its own takes seconds to import PyTorch, and a hundred tests need a process to themselves: they
limit it, move its memory or send it signals. What has other streams or other packages from the start starts afresh.
"""

import multiprocessing
import os
import resource
import runpy
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

from geodiff.cli.commands import COMMANDS

_PREPARED = [
    *("numpy", "torch", "safetensors.torch", "rich.progress", "matplotlib.figure", "geodiff", "geodiff.cli.commands"),
    *(f"geodiff.cli.{name}" for name in COMMANDS),
]


class _Job(NamedTuple):
    code: str | None  # None: the command geodiff
    arguments: list[str]
    folder: Path | None
    largest_file: int | None


class Running:
    """A process that runs; `communicate` waits for its end."""

    def __init__(self, process: BaseProcess, output: Connection, errors: Connection) -> None:
        self.process = process
        self._texts = ["", ""]
        self._readers = [
            threading.Thread(target=self._read, args=(place, pipe)) for place, pipe in enumerate((output, errors))
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, place: int, pipe: Connection) -> None:
        with pipe, os.fdopen(pipe.fileno(), closefd=False, encoding="utf-8", errors="replace") as file:
            self._texts[place] = file.read()

    def send_signal(self, number: int) -> None:
        """Nothing where it has ended, as with Popen's."""
        assert self.process.pid is not None
        with suppress(ProcessLookupError):
            os.kill(self.process.pid, number)

    def communicate(self, timeout: float) -> tuple[str, str]:
        """What it wrote to its output and its errors; after `timeout` seconds it is killed, and the test fails."""
        self.process.join(timeout)
        late = self.process.exitcode is None
        if late:
            self.process.kill()
            self.process.join()
        for reader in self._readers:
            reader.join()
        assert not late, f"after {timeout} s the process still ran; it said: {self._texts[1]}"
        return self._texts[0], self._texts[1]


def _begin(job: _Job, output: Connection, errors: Connection, begun: Connection) -> None:
    for pipe, descriptor in ((output, 1), (errors, 2)):
        os.dup2(pipe.fileno(), descriptor)
        pipe.close()
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", closefd=False, errors="backslashreplace", buffering=1)
    if job.folder is not None:
        os.chdir(job.folder)
    if job.largest_file is not None:
        # Python 3.11 keeps a compiled module that was cut off, and whoever imports it next fails.
        sys.dont_write_bytecode = True
        resource.setrlimit(resource.RLIMIT_FSIZE, (job.largest_file, job.largest_file))
    if job.code is None:
        _hold_signals()
    sys.argv = ["geodiff" if job.code is None else "-c", *job.arguments]
    begun.close()
    if job.code is None:
        runpy.run_module("geodiff", run_name="__main__", alter_sys=True)
    else:
        exec(compile(textwrap.dedent(job.code), "<code>", "exec"), {"__name__": "__main__"})


def _hold_signals() -> None:
    """Until the command listens: before, they would meet what stands here, where an interpreter would still begin."""
    listen = signal.signal
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})

    def listening(number: int, handler: Any) -> Any:
        before = listen(number, handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
        return before

    signal.signal = listening  # type: ignore[assignment]


def prepared() -> ForkServerContext:
    """Where processes begin as children of the one that has imported all that."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PREPARED)
    return context


@contextmanager
def started(
    *arguments: object, code: str | None = None, folder: Path | None = None, largest_file: int | None = None
) -> Iterator[Running]:
    """The command geodiff with these arguments, or `code` with them in sys.argv[1:], in a process that has just begun.

    It works in `folder`; its files do not grow beyond `largest_file` bytes, as on a disk that is full.
    """
    context = prepared()
    pipes = [context.Pipe(duplex=False) for _ in range(3)]
    job = _Job(code, [str(argument) for argument in arguments], folder, largest_file)
    process = context.Process(target=_begin, args=(job, *(write for _, write in pipes)))
    process.start()
    for _, write in pipes:
        write.close()
    output, errors, begun = (read for read, _ in pipes)
    running = Running(process, output, errors)
    begun.poll(60)  # until it closes its end: before, it is not what was asked for and would not know a signal
    begun.close()
    try:
        yield running
    finally:
        if process.exitcode is None:
            process.kill()
        process.join()


def run(
    *arguments: object,
    code: str | None = None,
    folder: Path | None = None,
    largest_file: int | None = None,
    timeout: float = 120,
) -> subprocess.CompletedProcess[str]:
    """Like subprocess.run of what `started` describes."""
    with started(*arguments, code=code, folder=folder, largest_file=largest_file) as running:
        output, errors = running.communicate(timeout)
    assert running.process.exitcode is not None
    return subprocess.CompletedProcess(list(arguments), running.process.exitcode, output, errors)
