"""Peers in processes of their own, so that the threads of one do not disturb the times of the others.

OpenMP threads that have nothing to do spin for some milliseconds before they sleep. Our kernels share PyTorch's OpenMP
runtime and so its threads; a peer that brings a second runtime into the process leaves threads behind that take the
cores from whoever is timed next, PyTorch included. Such a peer lives in a worker: it is given the data once, as a file,
then one query after the other, and times its own calls. Whoever is not being timed waits in a read, asleep.

`python -m geodiff.measure.baseline_process` is that worker; nothing but this module starts it.
"""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from geodiff.measure.baselines import OWN_PROCESS, Peer, PeerFailed, in_process, known, model_points

#: Seconds between the work of one process and that of another: threads that spin after the first fall asleep meanwhile.
PAUSE = 0.02
#: Seconds that a worker is given to end by itself before it is killed.
GRACE = 2.0


@contextlib.contextmanager
def opened(data: Tensor, names: Sequence[str] | None = None) -> Iterator[list[Peer]]:
    """The named peers (default: all) over data [N, *shape], each where it belongs; on leaving, no worker remains.

    Raises ValueError for an unknown name.
    """
    wanted = known(names)
    with contextlib.ExitStack() as stack:
        workers: dict[str, PeerProcess] = {}
        if apart := [name for name in wanted if name in OWN_PROCESS]:
            file = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="geodiff-"))) / "data.safetensors"
            save_file({"data": data.contiguous()}, file)
            for name in apart:
                workers[name] = PeerProcess(name, file)
                stack.callback(workers[name].close)
        points = model_points(data) if len(workers) < len(wanted) else data  # while the workers start
        yield [workers[name].peer() if name in workers else in_process(name, points) for name in wanted]


class PeerProcess:
    """A worker with one peer, on as many threads as PyTorch uses here."""

    def __init__(self, name: str, file: Path) -> None:
        """file: the data as a safetensors file, which is read once."""
        self.name = name
        self._connection, theirs = Pipe()
        command = [sys.executable, "-m", __name__, name, str(file), str(theirs.fileno()), str(torch.get_num_threads())]
        self._process = subprocess.Popen(
            command,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},  # the same package as here
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # KeOps prints what it compiles
            start_new_session=True,  # Ctrl-C reaches this process alone, and `close` also the compilers of the worker
        )
        theirs.close()  # so that a read here fails when the worker is gone

    def peer(self) -> Peer:
        """The peer, once the worker has made it."""
        try:
            reason = self._reply()
        except PeerFailed as failure:
            reason = str(failure)
        return Peer(self.name, None if reason else self.timed, reason)

    def timed(self, x: Tensor, sigma: float) -> tuple[Tensor, float]:
        """The answer of the peer, and the seconds that it took there. Raises PeerFailed."""
        with contextlib.suppress(OSError):  # of a worker that is gone: `_reply` says so
            self._connection.send((x.numpy(), sigma))
        reply = self._reply()
        if isinstance(reply, str):
            raise PeerFailed(reply)
        answer, seconds = reply
        return torch.from_numpy(answer), seconds

    def close(self) -> None:
        """Ends the worker: by itself when it sees that nobody asks any more, by force in the middle of a call."""
        self._connection.close()
        try:
            self._process.wait(GRACE)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def _reply(self) -> Any:
        try:
            return self._connection.recv()
        except (EOFError, OSError):
            raise PeerFailed(f"its process ended with exit code {self._process.wait()}") from None


def _serve(connection: Connection, name: str, file: str) -> None:
    """The worker: first the reason why there is no such peer here (or ""), then (answer, seconds) or a remark each."""
    peer = in_process(name, model_points(load_file(file)["data"]))
    connection.send(peer.reason)
    while peer.timed is not None:
        x, sigma = connection.recv()
        time.sleep(PAUSE)
        try:
            answer, seconds = peer.timed(torch.from_numpy(x), sigma)
        except PeerFailed as failure:
            reply: object = str(failure)
        else:
            reply = answer.numpy(), seconds
        time.sleep(PAUSE)
        connection.send(reply)


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[4]))
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):  # nobody asks any more
        _serve(Connection(int(sys.argv[3])), sys.argv[1], sys.argv[2])
