"""The optimal denoiser over data that lie on several ranks, as a module like `OptimalDenoiser`."""

import math
import os
from typing import Any, Literal

import torch
from torch import Tensor

from geodiff.base.arguments import check_integer, shape_log_weights
from geodiff.base.array_like import Array, as_tensor
from geodiff.data import load
from geodiff.denoiser.module import OptimalDenoiser
from geodiff.distributed.ranks import Ranks
from geodiff.distributed.sharded_points import ShardedPointSet


class ShardedDenoiser(OptimalDenoiser):
    """r*(x; sigma) over the rows of all ranks: sum_k alpha_k r_k, alpha_k = softmax_k(M_k + log p_k).

    M_k is the logarithm of the prior weight of rank k's rows, r_k and log p_k their own answer.

    part           [N_k, *shape]: this rank's rows, in rank order; or a path, of which each rank takes its range: the
                   rows, and of `labels` and `log_weights` [N] its part of them
    process_group  of torch.distributed, gloo on the CPU, NCCL on GPUs; None: all ranks. Queries too can be split: ranks
                   with the same rows each ask for their part of the batch, each in the group of its part
    labels         int [N_k], or [N] for a path; all ranks have some, or none does
    log_weights    [N_k], or [N] for a path: pi_i is proportional to exp of them over all ranks. All may be -inf on some
                   ranks, which then contribute nothing
    backend, device, tol, augment  as in `OptimalDenoiser`; `tol` holds for the merged answer

    A call is collective: every rank makes it with the same x, sigma and conditions, and has the whole answer. Masks are
    [B, N] and `indices` and `exclude` count over all N = sum_k N_k rows (mirror images N further on). It tells
    the other ranks 9 numbers a query and sums up [B, d] float64; a second time for queries whose error would exceed
    `tol`. First derivatives are collective, too; second ones, copies and pickles are not to be had (TypeError).

    Raises what `OptimalDenoiser` raises, on all ranks where one rank's part is at fault, and `RankLost` where a rank
    has gone: at once where its connection closes, else after the timeout of the process group.
    """

    _points: ShardedPointSet

    def __init__(
        self,
        part: Array | str | os.PathLike[str],
        process_group: Any = None,
        *,
        labels: Array | None = None,
        log_weights: Array | None = None,
        backend: str = "auto",
        device: torch.device | str | None = None,
        tol: float = 1e-5,
        augment: Literal["hflip"] | None = None,
    ) -> None:
        ranks = Ranks(process_group)
        with ranks.agreeing():
            if isinstance(part, str | os.PathLike):
                part, labels, log_weights = _range_of(part, ranks, labels, log_weights)
            nothing = _has_no_weight(log_weights)
            super().__init__(
                part,
                labels=labels,
                log_weights=None if nothing else log_weights,
                backend=backend,
                device=device,
                tol=tol,
                augment=augment,
            )
            if nothing:
                shape_log_weights(log_weights, self._points.stored.n)
            total = -math.inf if nothing else _log_total(log_weights, self._points.stored.n)
        self._check_alike(ranks, labels is not None, log_weights is not None)
        self._points = ShardedPointSet(self._points, ranks, total)
        self.label_dim = self._points.label_dim

    def _check_alike(self, ranks: Ranks, labelled: bool, weighted: bool) -> None:
        said = {
            "tol": f"{self.tol:g}",
            "augment": repr(self.augment),
            "labels": "some" if labelled else "none",
            "log_weights": "some" if weighted else "none",
        }
        found = ranks.objects(said)
        for rank, other in enumerate(found):
            for name, value in found[0].items():
                if other[name] != value:
                    raise ValueError(
                        f"{name}: expected alike on all ranks, found {value} on rank 0 and {other[name]} on rank {rank}"
                    )

    def extra_repr(self) -> str:
        """One line for print(denoiser)."""
        ranks = self.ranks
        return f"rank {ranks.rank} of {ranks.size}, N={self._points.n} in all, here {super().extra_repr()}"


def _range_of(
    path: str | os.PathLike[str], ranks: Ranks, labels: Array | None, log_weights: Array | None
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """This rank's rows of a file or folder, and its part of what goes with all rows."""
    data = load(path).data
    check_integer(len(data), "part: N", ranks.size)
    mine = ranks.share(len(data))

    def cut(values: Array | None, name: str) -> Tensor | None:
        if values is None:
            return None
        found = as_tensor(values, name)
        if found.ndim == 0 or len(found) != len(data):
            raise ValueError(f"{name}: expected [N] = [{len(data)}] for all rows of {path}, found {list(found.shape)}")
        return found[mine.start : mine.stop]

    return data[mine.start : mine.stop], cut(labels, "labels"), cut(log_weights, "log_weights")


def _has_no_weight(log_weights: Array | None) -> bool:
    """Whether all are -inf: of one process alone an error, of a rank a part that is never asked."""
    if log_weights is None:
        return False
    found = as_tensor(log_weights, "log_weights", listed=torch.float64)
    return found.is_floating_point() and found.numel() > 0 and bool(found.isneginf().all())


def _log_total(log_weights: Array | None, n: int) -> float:
    if log_weights is None:
        return math.log(n)
    return float(as_tensor(log_weights, "log_weights", listed=torch.float64).double().logsumexp(0))
