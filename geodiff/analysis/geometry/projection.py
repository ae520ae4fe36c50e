"""The shape of a path in few dimensions: its chord, and the principal components of what the chord leaves over."""

from typing import NamedTuple

import torch
from torch import Tensor

from geodiff.analysis.geometry.paths import check_path, flat
from geodiff.base.arguments import check_integer

_BLOCK = 2**22  # the most numbers of the path that are held in float64 at a time


class Projection(NamedTuple):
    """coordinates [P, B, 1 + k]: along the chord, then along k components; explained [B, 1 + k]: share of
    sum_p |x_p - x_0|^2 in the chord, in the chord and one component, ...; complement [B, k]: share of what the chord
    leaves over, in one component, in two, ... All float64. Shares of nothing are 1.
    """

    coordinates: Tensor
    explained: Tensor
    complement: Tensor


def project(path: Tensor, components: int = 2) -> Projection:
    """a_p = <x_p - x_0, u>, and <w_p, e_k> with w_p = x_p - x_0 - a_p u and e_k the principal components of w.

    u = (x_end - x_0) / |x_end - x_0|. With two components nearly all of a sampling trajectory is seen, a boomerang that
    is alike for all samples (Chen et al., 2405.11326). The components are those of w as it is, not centred, so both
    ends of the path stay on the chord; each is turned so that its largest coordinate is positive.
    path [P, B, *shape], P >= 2; components 0..P. Only the P x P inner products of a path are decomposed, never d x d.
    Raises TypeError or ValueError that names the argument.
    """
    path = check_path(path)
    components = check_integer(components, "components", 0, len(path))
    rows = max(1, _BLOCK // max(1, path[:, :1].numel()))
    parts = [_project(block, components) for block in path.split(rows, dim=1)]
    coordinates, explained, complement = zip(*parts, strict=True)
    return Projection(torch.cat(coordinates, 1), torch.cat(explained), torch.cat(complement))


def _project(path: Tensor, components: int) -> Projection:
    moved = torch.stack([flat(point - path[0]) for point in path], 1)  # [B, P, d]
    length = moved[:, -1].norm(dim=1)[:, None, None]  # [B, 1, 1]
    chord = torch.where(length > 0, moved[:, -1:] / length, 0.0)  # [B, 1, d]
    along = moved @ chord.transpose(1, 2)  # [B, P, 1]
    left = moved - along * chord
    values, vectors = torch.linalg.eigh(left @ left.transpose(1, 2))  # ascending
    values = values.clamp_min(0).flip(1)[:, :components]
    across = vectors.flip(2)[:, :, :components] * values.sqrt()[:, None]  # [B, P, k]: Gram = V diag(values) V^T
    largest = across.abs().argmax(1, keepdim=True)
    across = across * torch.where(across.gather(1, largest) < 0, -1.0, 1.0)

    of_chord, rest = along.square().sum((1, 2)), left.square().sum((1, 2))
    shares = torch.cat([of_chord[:, None], values], 1).cumsum(1)
    return Projection(
        torch.cat([along, across], 2).transpose(0, 1),
        _share(shares, (of_chord + rest)[:, None]),
        _share(values.cumsum(1), rest[:, None]),
    )


def _share(part: Tensor, whole: Tensor) -> Tensor:
    return torch.where(whole > 0, part / whole, 1.0)
