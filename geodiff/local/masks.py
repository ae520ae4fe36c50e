"""PSPC-Flex: posteriors over masks of any pixels, which come from a network's heatmaps (Niedoba et al., 2411.19339)."""

from collections.abc import Callable, Hashable, Sequence

import torch
from torch import Tensor

from geodiff.base.arguments import check_reals
from geodiff.base.array_like import as_tensor
from geodiff.local.kind import Kind, Settings, Source
from geodiff.reference.forms import Form, Masks
from geodiff.reference.locality import mask_of_heatmap


class Flex(Kind):
    """masks: bool [A, H, W] for all levels, or a callable sigma -> bool [A, H, W] (`flex_masks`)."""

    def __init__(self, shape: tuple[int, int, int], settings: Settings) -> None:
        self._size, self._masks = shape[1:], settings.masks
        if self._masks is None:
            raise ValueError(
                "masks: expected masks for kind 'pspc_flex', found None; allowed bool [A, H, W], or sigma -> masks"
            )
        if not callable(self._masks):
            self._masks = self._checked(self._masks).masks

    def key(self, sigma: float) -> Hashable:
        return sigma if callable(self._masks) else None

    def form(self, key: Hashable, source: Source) -> Form:
        found = self._masks(key) if callable(self._masks) else self._masks  # type: ignore[arg-type]
        return self._checked(found, source.images.device)

    def _checked(self, masks: object, device: torch.device | None = None) -> Masks:
        made = Masks(as_tensor(masks, "masks").to(device))
        if made.masks.shape[1:] != self._size:
            found = list(made.masks.shape)
            raise ValueError(f"masks: expected [A, H, W] with H, W = {list(self._size)}, found {found}; allowed those")
        return made


def flex_masks(heatmaps: Tensor, sigmas: Sequence[float], shares: Sequence[float]) -> Callable[[float], Tensor]:
    """sigma -> masks bool [A, H, W] of the level j = argmin |sigma - sigma_j|: entries that hold share_j of a heatmap.

    heatmaps [L, H, W, H, W] >= 0 or [L, A, H, W]: of every pixel (or posterior) a how much each pixel counts for it,
             such as the mean |d D_a / d x| of a network at that level
    sigmas   [L] noise levels
    shares   [L] in (0, 1]: 1 means one full mask for all pixels
    Of the paper: 18 Karras levels, shares 1 (7 times), .7 .7 .5 .4 .4 .4 .4 .3 .3 .3 .3.
    Raises TypeError or ValueError that names the argument.
    """
    heatmaps = as_tensor(heatmaps, "heatmaps")
    levels = check_reals(sigmas, "sigmas", "[L]", 1)
    held = check_reals(shares, "shares", "[L]", 1)
    if heatmaps.ndim == 5:
        heatmaps = heatmaps.flatten(1, 2)
    if heatmaps.ndim != 4 or not len(heatmaps) == len(levels) == len(held):
        raise ValueError(
            f"heatmaps: expected [L, H, W, H, W] or [L, A, H, W] with L = {len(levels)} sigmas and {len(held)} shares, "
            f"found {list(heatmaps.shape)}; allowed one of each per level"
        )
    if not bool((heatmaps >= 0).all()) or not bool(heatmaps.isfinite().all()):
        raise ValueError("heatmaps: expected finite numbers >= 0, found others; allowed no NaN, no Inf")
    if not bool(((held > 0) & (held <= 1)).all()):
        raise ValueError(f"shares: expected shares of a heatmap, found {held.tolist()}; allowed 0 < share <= 1")

    def masks(sigma: float) -> Tensor:
        level = int((levels - sigma).abs().argmin())
        if held[level] == 1:
            return torch.ones(1, *heatmaps.shape[-2:], dtype=torch.bool, device=heatmaps.device)
        return mask_of_heatmap(heatmaps[level], float(held[level]))

    return masks
