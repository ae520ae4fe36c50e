"""A command that torchrun has started several times: every process holds its rows, and the first one speaks for all."""

import os
from collections.abc import Iterator
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
    try:
        dist.init_process_group("gloo")
    except RuntimeError as error:  # torch names no class for a store that is closed, or a timeout
        raise RankLost(
            f"process_group: expected {size()} ranks to meet, found some missing (rank {os.environ['RANK']} says: "
            f"{' '.join(str(error).split())}); allowed to start all ranks again, as torchrun --max-restarts does"
        ) from error
    try:
        _ranks = Ranks()
        yield _ranks
    finally:
        _ranks = ALONE
        dist.destroy_process_group()


def denoiser_over(data: Tensor, **options: Any) -> OptimalDenoiser:
    """The optimal denoiser over data that every process has, or has mapped: of a job, each process takes its rows.

    Raises ValueError for fewer points than processes, and else as the denoisers do.
    """
    if _ranks.size == 1:
        return OptimalDenoiser(data, **options)
    check_integer(len(data), "data: N", _ranks.size)
    mine = _ranks.share(len(data))
    return ShardedDenoiser(data[mine.start : mine.stop], **options)
