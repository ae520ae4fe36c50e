"""The ranks that hold parts of the data, and what they tell each other: torch.distributed, with errors that say why."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from geodiff.base.errors import RankLost
from geodiff.denoiser import merging

_T = TypeVar("_T")


class Ranks:
    """The ranks of a process group. What is gathered or summed up is the same everywhere, bit for bit.

    All calls are collective: each rank makes the same ones in the same order.
    """

    def __init__(self, process_group: Any = None) -> None:
        """process_group: of torch.distributed; None: all ranks. Raises ValueError where there is none."""
        if not (dist.is_available() and dist.is_initialized()):
            raise ValueError(
                "process_group: expected torch.distributed ready for use, found it not initialized; allowed after "
                "torch.distributed.init_process_group(), in processes that torchrun has started"
            )
        self.group: Any = process_group if process_group is not None else dist.group.WORLD
        self.rank, self.size = dist.get_rank(self.group), dist.get_world_size(self.group)
        if self.rank < 0:
            raise ValueError("process_group: expected a group that this rank belongs to, found one without it")
        cpu = "gloo" in dist.get_backend(self.group)
        self._device = torch.device("cpu") if cpu else torch.device("cuda", torch.cuda.current_device())

    def gathered(self, values: Tensor) -> Tensor:
        """[...] of this rank -> [K, ...] of all, in rank order, where `values` lie."""
        if self.size == 1 or values.numel() == 0:
            return values.expand(self.size, *values.shape)
        sent = values.to(self._device).contiguous()
        found = sent.new_empty(self.size, *sent.shape)
        self._together("gathered", lambda: dist.all_gather(list(found.unbind(0)), sent, group=self.group))
        return found.to(values.device)

    def total(self, values: Tensor) -> Tensor:
        """The sum over all ranks, where `values` lie; they are used up."""
        if self.size == 1 or values.numel() == 0:
            return values
        sent = values.to(self._device).contiguous()
        self._together("summed up", lambda: dist.all_reduce(sent, group=self.group))
        return sent.to(values.device)

    def of_first(self, values: Tensor) -> Tensor:
        """The values that the first rank has."""
        if self.size == 1 or values.numel() == 0:
            return values
        sent = values.to(self._device).contiguous()
        first = dist.get_global_rank(self.group, 0)
        self._together("sent on", lambda: dist.broadcast(sent, first, group=self.group))
        return sent.to(values.device)

    def objects(self, one: _T) -> list[_T]:
        """What each rank has to say, in rank order."""
        found: list[Any] = [None] * self.size
        self._together("compared", lambda: dist.all_gather_object(found, one, group=self.group))
        return found

    def first_says(self, one: _T) -> _T:
        """What the first rank has to say."""
        found = [one]
        first = dist.get_global_rank(self.group, 0)
        self._together("sent on", lambda: dist.broadcast_object_list(found, first, group=self.group))
        return found[0]

    @contextmanager
    def agreeing(self) -> Iterator[None]:
        """An error in the block on one rank is one on all: each rank ends the block, or none does."""
        mine: Exception | None = None
        try:
            yield
        except Exception as error:  # whatever it is, the others must hear of it before they wait for this rank
            mine = error
        texts = self.objects(None if mine is None else f"{type(mine).__name__}: {mine}")
        if mine is not None:
            raise mine
        for rank, text in enumerate(texts):
            if text is not None:
                raise ValueError(f"rank {rank} of {self.size}: {text}")

    def share(self, count: int) -> range:
        """This rank's part of 0..count - 1, in rank order; parts differ by one at most."""
        return range(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def _together(self, what: str, work: Callable[[], object]) -> None:
        try:
            work()
        except RuntimeError as error:  # torch names no class for a connection that is closed
            raise RankLost(
                f"process_group: expected all {self.size} ranks to answer, found one gone or silent while numbers were "
                f"{what} (rank {self.rank} says: {' '.join(str(error).split())}); allowed to start all ranks again, as "
                f"torchrun --max-restarts does"
            ) from error


@contextmanager
def leading(ranks: merging.Ranks) -> Iterator[bool]:
    """Whether this rank is the first, which reads and writes; an error of its in the block is one on all."""
    if isinstance(ranks, Ranks):
        with ranks.agreeing():
            yield ranks.rank == 0
    else:
        yield True
