"""Which axis is which: everything that is an image comes out as [N, C, H, W], without moving a byte."""

from collections.abc import Sequence

import torch
from torch import Tensor

LAYOUTS = ("auto", "chw", "hwc", "flat")
CHANNELS = (1, 3, 4)  # grey, RGB, RGBA


def arrange(data: Tensor, layout: str) -> tuple[Tensor, str]:
    """[N, H, W, C] or [N, H, W] or [N, C, H, W] -> view [N, C, H, W], with what was done in words.

    layout "auto": four axes are HWC when the last is 1, 3 or 4 and the second is not, otherwise CHW (said so where both
    would fit); three axes of uint8 are [N, H, W]; everything else stays as it is.
    layout "chw", "hwc": three axes are [N, H, W], four as named; raises ValueError for any other number of axes.
    layout "flat": as it is.
    """
    if layout == "flat" or (layout == "auto" and not _looks_like_images(data)):
        return data, "flat" if data.ndim == 2 else "as given"
    if data.ndim == 3:
        return data.unsqueeze(1), "HW viewed as CHW"
    if data.ndim != 4:
        raise ValueError(
            f"layout: {layout!r} expects data [N, H, W] or with four axes, found shape {tuple(data.shape)}; "
            "allowed here: 'auto', 'flat'"
        )
    if layout == "auto":
        if data.shape[3] in CHANNELS and data.shape[1] in CHANNELS:
            return data, "CHW (HWC would fit too: say layout='hwc' if it is)"
        layout = "hwc" if is_hwc(data.shape) else "chw"
    if layout == "hwc":
        return data.permute(0, 3, 1, 2), "HWC viewed as CHW"
    return data, "CHW"


def arrange_images(data: Tensor, layout: str) -> tuple[Tensor, str]:
    """The same for [N, C, H, W] whose axes the source fixes: "auto" and "chw" keep them, "flat" views [N, d]."""
    if layout == "hwc":
        raise ValueError("layout: this source is known to be CHW, found 'hwc'; allowed 'auto', 'chw', 'flat'")
    return (data.flatten(1), "flat") if layout == "flat" else (data, "CHW")


def is_hwc(shape: Sequence[int]) -> bool:
    """Whether data of this shape are [N, H, W, C], by their sizes: the last is that of channels, the second is not."""
    return len(shape) == 4 and shape[3] in CHANNELS and shape[1] not in CHANNELS


def _looks_like_images(data: Tensor) -> bool:
    return data.ndim == 4 or (data.ndim == 3 and data.dtype == torch.uint8)
