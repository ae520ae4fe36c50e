"""The largest eigenvalue of a symmetric operator that is only known by its products."""

from collections.abc import Callable

import torch
from torch import Tensor

from geodiff.base.arguments import check_integer

__all__ = ["largest_eigenvalue"]


def largest_eigenvalue(
    product: Callable[[Tensor], Tensor], start: Tensor, *, iterations: int = 60, tol: float = 1e-10
) -> tuple[Tensor, Tensor]:
    """max <v, A v> over |v| = 1, by Lanczos: values float64 [B], and vectors of unit length, float64 [B, *shape].

    product  v [B, *shape] -> A v, A symmetric positive semi-definite, one operator for each row of the batch
    start    [B, *shape], not orthogonal to the wanted vectors: random numbers will do

    Ends after `iterations` products, or when no row gains more than tol, relatively, from another. All Lanczos vectors
    are kept and orthogonalised anew, twice: O(iterations B d) memory. Golub and Van Loan, Matrix Computations, ch. 10.
    Raises ValueError for a start with a row of zeros.
    """
    check_integer(iterations, "iterations", 1)
    flat = start.flatten(1).double()
    length = flat.norm(dim=1, keepdim=True)
    if not bool((length > 0).all()):
        raise ValueError("start: expected a direction in every row, found a row of zeros; allowed any other vectors")
    basis = (flat / length)[:, None]  # [B, k, d]
    diagonal: list[Tensor] = []
    beside: list[Tensor] = []
    found = torch.zeros(len(flat), dtype=torch.float64, device=flat.device)
    for _ in range(min(iterations, flat.shape[1])):
        newest = basis[:, -1]
        image = product(newest.reshape(start.shape)).flatten(1).double()
        diagonal.append((image * newest).sum(1))
        tridiagonal = _tridiagonal(diagonal, beside)
        previous, found = found, torch.linalg.eigvalsh(tridiagonal)[:, -1]
        if bool(((found - previous).abs() <= tol * found.abs()).all()):
            break
        for _ in range(2):
            image = image - torch.einsum("bkd,bk->bd", basis, torch.einsum("bkd,bd->bk", basis, image))
        size = image.norm(dim=1)
        # Where a Krylov space is exhausted the next vector is rounding: 0 in its place adds an eigenvalue 0, no more.
        size = torch.where(size > 1e-12 * found.abs(), size, 0.0)
        beside.append(size)
        following = torch.where(size[:, None] > 0, image / size[:, None], 0.0)
        basis = torch.cat([basis, following[:, None]], 1)
    weights = torch.linalg.eigh(tridiagonal)[1][:, :, -1]  # [B, k]
    vectors = torch.einsum("bkd,bk->bd", basis[:, : weights.shape[1]], weights)
    return found, (vectors / vectors.norm(dim=1, keepdim=True)).reshape(start.shape)


def _tridiagonal(diagonal: list[Tensor], beside: list[Tensor]) -> Tensor:
    """[B, k, k] from k diagonals [B] and k - 1 numbers beside them [B]."""
    matrix = torch.diag_embed(torch.stack(diagonal, 1))
    if beside:
        off = torch.stack(beside[: len(diagonal) - 1], 1)
        matrix = matrix + torch.diag_embed(off, 1) + torch.diag_embed(off, -1)
    return matrix
