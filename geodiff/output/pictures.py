"""Pictures of samples and trajectories, as PNG files. Needs matplotlib (the extra `plots`), imported when used."""

import importlib
import math
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from geodiff.base.files import atomic_path
from geodiff.base.package_name import install_hint
from geodiff.solvers.trajectory import Trajectory

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Pixels = np.ndarray[Any, np.dtype[np.float32]]

_INK = "#22303c"
_GREY = "#6b7785"


def check_available() -> None:
    """Raises ImportError without matplotlib."""
    _matplotlib("image")


def check_shape(shape: Sequence[int]) -> None:
    """Raises ValueError unless points of this shape can be shown: [H, W] or [C, H, W] with 1, 3 or 4 channels."""
    if len(shape) == 2 or (len(shape) == 3 and shape[0] in (1, 3, 4)):
        return
    raise ValueError(
        f"shape: points of shape {list(shape)} are no pictures; allowed [H, W] or [C, H, W] with 1, 3 or 4 channels"
    )


def save_grid(path: str | os.PathLike[str], images: Tensor, *, zoom: int | None = None) -> None:
    """Writes images [n, C, H, W] or [n, H, W] in model space [-1, 1] as one near-square PNG, nearest-pixel enlarged.

    zoom: screen pixels per image pixel (default: what makes an image about 56 wide).
    Raises ValueError for other shapes and for n = 0, ImportError without matplotlib.
    """
    imsave = _matplotlib("image").imsave
    check_shape(images.shape[1:])
    if images.shape[0] == 0:
        raise ValueError("images: found none, allowed one or more")
    zoom = zoom or max(1, round(56 / images.shape[-1]))
    with atomic_path(path) as temporary:
        imsave(temporary, tiled(images, gap=1).repeat(zoom, 0).repeat(zoom, 1), format="png")


def save_trajectories(
    path: str | os.PathLike[str], trajectory: Trajectory, *, samples: int = 6, levels: int = 11, title: str = ""
) -> None:
    """Writes a PNG: for a few samples the sampling row x_σ above the denoising row r(x_σ; σ), over σ; then all samples.

    x_σ is shown divided by √(1 + σ²), so that noise and picture have the same range at every level. The last column is
    the sample itself, in both rows.
    samples: how many are shown as rows, spread over the batch; levels: how many noise levels, spread over the steps.
    Raises ValueError for points that are no pictures or for no samples, ImportError without matplotlib.
    """
    figure_class = _matplotlib("figure").Figure
    check_shape(trajectory.states.shape[2:])
    steps, batch = trajectory.denoised.shape[:2]
    if batch == 0:
        raise ValueError("trajectory: found no samples (B = 0), allowed one or more")
    shown = _spread(levels, steps)
    sigmas = trajectory.sigmas.tolist()
    ends = trajectory.states[-1]
    rows = []
    for sample in _spread(samples, batch):
        noisy = [trajectory.states[step, sample] / math.sqrt(1 + sigmas[step] ** 2) for step in shown]
        clean = [trajectory.denoised[step, sample] for step in shown]
        rows += [torch.stack([*noisy, ends[sample]]), torch.stack([*clean, ends[sample]])]

    height, width = ends.shape[-2:]
    gap = max(1, width // 14)
    sheet, tops = stacked([tiled(row, gap, columns=len(shown) + 1) for row in rows], gap, 2 * gap)
    grid = tiled(ends, max(1, gap // 2))
    ratios = [sheet.shape[1] / sheet.shape[0], grid.shape[1] / grid.shape[0]]
    size = 5.4  # inches, the height of both panels
    figure = figure_class(figsize=(size * sum(ratios) + 1.6, size + 0.8), dpi=130, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=ratios)
    figure.suptitle(title, fontsize=12, color=_INK, weight="bold")
    centres = [column * (width + gap) + (width - 1) / 2 for column in range(len(shown) + 1)]
    _show(left, sheet)
    left.set_xticks(centres, [level(sigmas[step]) for step in [*shown, steps]])
    left.set_yticks([top + (height - 1) / 2 for top in tops], ["sampling", "denoising"] * (len(rows) // 2))
    left.xaxis.set_label_position("top")
    left.set_xlabel("σ", fontsize=10, color=_GREY)
    _show(right, grid)
    right.set_xticks([])
    right.set_yticks([])
    right.set_title(f"all {batch} samples", fontsize=9, color=_GREY)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", facecolor="white")


def save_columns(path: str | os.PathLike[str], columns: Mapping[str, Tensor], *, title: str = "") -> None:
    """Writes a PNG: one row for each of n images, one labelled column for each entry, images [n, C, H, W] of one shape.

    Raises ValueError for points that are no pictures or for none of them, ImportError without matplotlib.
    """
    figure_class = _matplotlib("figure").Figure
    images = torch.stack([column.detach().float().cpu() for column in columns.values()], 1)  # [n, columns, C, H, W]
    check_shape(images.shape[2:])
    if len(images) == 0:
        raise ValueError("columns: found no images, allowed one or more in each")
    height, width = images.shape[-2:]
    gap = max(1, width // 14)
    sheet = tiled(images.flatten(0, 1), gap, columns=len(columns))
    across, down = 1.1 * len(columns), 1.1 * len(images) * height / width  # inches
    figure = figure_class(figsize=(across + 0.4, down + (0.8 if title else 0.5)), dpi=110, layout="constrained")
    axes = figure.subplots()
    figure.suptitle(title, fontsize=9, color=_INK)
    _show(axes, sheet)
    axes.set_xticks([column * (width + gap) + (width - 1) / 2 for column in range(len(columns))], list(columns))
    axes.set_yticks([])
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", facecolor="white")


def _show(axes: "Axes", pixels: Pixels) -> None:
    """Pixels without a frame; ticks are labels on top and at the left, without marks."""
    axes.imshow(pixels, interpolation="nearest")
    axes.tick_params(length=0, labelsize=8, labelcolor=_GREY, top=True, labeltop=True, bottom=False, labelbottom=False)
    axes.spines[:].set_visible(False)


def _spread(count: int, length: int) -> list[int]:
    """At most `count` indices, evenly from 0 to length - 1."""
    return sorted({round(index) for index in np.linspace(0, length - 1, min(count, length)).tolist()})


def level(sigma: float) -> str:
    """σ in at most four characters of digits: 80, 12.4, 1.1, 0.09, 0.002."""
    if sigma == 0:
        return "0"
    return f"{sigma:.0f}" if sigma >= 10 else f"{sigma:.2g}" if sigma >= 0.01 else f"{sigma:.1g}"


def _pixels(images: Tensor) -> Pixels:
    """[n, (C,) H, W] in model space -> [n, H, W, 3 or 4] in [0, 1]."""
    values = ((images.detach().float().cpu() + 1) / 2).clamp(0, 1)
    if values.ndim == 3:
        values = values[:, None]
    if values.shape[1] == 1:
        values = values.expand(-1, 3, -1, -1)
    pixels: Pixels = values.permute(0, 2, 3, 1).numpy()
    return pixels


def tiled(images: Tensor, gap: int, columns: int | None = None) -> Pixels:
    """All images on a white sheet, row by row; near-square unless the number of columns is given."""
    pixels = _pixels(images)
    count, height, width, channels = pixels.shape
    columns = columns or math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    sheet = np.ones((rows * (height + gap) - gap, columns * (width + gap) - gap, channels), dtype=np.float32)
    for index, picture in enumerate(pixels):
        y, x = (index // columns) * (height + gap), (index % columns) * (width + gap)
        sheet[y : y + height, x : x + width] = picture
    return sheet


def stacked(strips: Sequence[Pixels], gap: int, gap_of_groups: int, group: int = 2) -> tuple[Pixels, list[int]]:
    """Strips of one size below each other, in groups that stand apart; and the first line of each."""
    height, width, channels = strips[0].shape
    tops = [index * (height + gap) + index // group * (gap_of_groups - gap) for index in range(len(strips))]
    sheet = np.ones((tops[-1] + height, width, channels), dtype=np.float32)
    for top, strip in zip(tops, strips, strict=True):
        sheet[top : top + height] = strip
    return sheet, tops


def _matplotlib(module: str) -> Any:
    """A module of matplotlib; never pyplot, which has global state and looks for a display."""
    try:
        return importlib.import_module(f"matplotlib.{module}")
    except ModuleNotFoundError as error:
        raise ImportError(
            f"pictures need the package matplotlib, which is not installed; {install_hint('plots')}"
        ) from error
