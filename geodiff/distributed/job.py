"""A command that torchrun has started several times: every process holds its rows, and the first one speaks for all."""

import os
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch.distributed as dist
from torch import Tensor

from geodiff.base.arguments import check_integer
from geodiff.base.errors import RankLost
from geodiff.denoiser import merging
from geodiff.denoiser.merging import ALONE
from geodiff.denoiser.module import OptimalDenoiser
from geodiff.distributed.ranks import Ranks
from geodiff.distributed.sharded import ShardedDenoiser

#: Seconds within which all ranks have to meet. A rank that was killed before it met the others leaves no connection
#: that closes, so nothing but the clock says that it will not come; torch waits for half an hour.
MEETING = 50.0

_ranks: merging.Ranks = ALONE


def ranks() -> merging.Ranks:
    """The processes of the command; ALONE outside `joined`, and where torchrun has started one or none."""
    return _ranks


def size() -> int:
    """How many processes torchrun says that it has started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "MASTER_ADDR" in os.environ and "RANK" in os.environ else 1


@contextmanager
def joined() -> Iterator[merging.Ranks]:
    """Within the block the processes that torchrun has started are one job. Raises RankLost where they do not meet."""
    global _ranks
    if size() == 1 or dist.is_initialized():
        yield _ranks
        return
    _meet()
    try:
        _ranks = Ranks()
        _keep_to_own_cores(_ranks)
        yield _ranks
    finally:
        _ranks = ALONE
        dist.destroy_process_group()


def _meet() -> None:
    """Waits for the other ranks, in a thread of its own: a signal ends the command while torch waits inside of C++."""
    failed: list[RuntimeError] = []

    def meet() -> None:
        try:
            dist.init_process_group("gloo")
        except RuntimeError as error:  # torch names no class for a store that is closed, or a timeout
            failed.append(error)

    meeting = threading.Thread(target=meet, daemon=True, name="meeting of ranks")
    with _stdout_on_stderr():
        meeting.start()
        meeting.join(MEETING)
    if not meeting.is_alive() and not failed:
        return
    said = " ".join(str(failed[0]).split()) if failed else f"waited for {MEETING:g} seconds"
    raise RankLost(
        f"process_group: expected {size()} ranks to meet, found some missing (rank {os.environ['RANK']} says: {said}); "
        f"allowed to start all ranks again, as torchrun --max-restarts does"
    ) from (failed[0] if failed else None)


@contextmanager
def _stdout_on_stderr() -> Iterator[None]:
    """For what C++ prints: gloo of PyTorch 2.8 says to stdout that ranks have met, ahead of a command's JSON."""
    sys.stdout.flush()
    try:
        stdout = os.dup(1)
    except OSError:  # closed: nobody reads what is said
        yield
        return
    try:
        os.dup2(2, 1)
        yield
    finally:
        os.dup2(stdout, 1)
        os.close(stdout)


def cores_of(rank: int, told: Sequence[tuple[str, Sequence[int]]]) -> Sequence[int]:
    """The cores for a rank, of those that it may use: its share where all ranks of its machine may use the same ones.

    told: of each rank the machine's name and the cores. Ranks that torchrun or a scheduler has bound keep what they
    have, and so do more ranks than cores.
    """
    machine, cores = told[rank]
    here = [other for other, (name, _) in enumerate(told) if name == machine]
    if len(cores) < len(here) or any(told[other][1] != cores for other in here):
        return cores
    place = here.index(rank)
    return cores[len(cores) * place // len(here) : len(cores) * (place + 1) // len(here)]


def _keep_to_own_cores(ranks: Ranks) -> None:
    """Ranks wake each other, and the system likes to wake a process where the waker runs: two ranks on one core."""
    if not hasattr(os, "sched_setaffinity"):
        return
    told = ranks.objects((socket.gethostname(), sorted(os.sched_getaffinity(0))))
    os.sched_setaffinity(0, cores_of(ranks.rank, told))


def denoiser_over(data: Tensor, **options: Any) -> OptimalDenoiser:
    """The optimal denoiser over data that every process has, or has mapped: of a job, each process takes its rows.

    Raises ValueError for fewer points than processes, and else as the denoisers do.
    """
    if _ranks.size == 1:
        return OptimalDenoiser(data, **options)
    check_integer(len(data), "data: N", _ranks.size)
    mine = _ranks.share(len(data))
    return ShardedDenoiser(data[mine.start : mine.stop], **options)
