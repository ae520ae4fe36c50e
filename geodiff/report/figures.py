"""Pictures for the report, in one style: curves as SVG, rows of images as PNG. Needs matplotlib (extra `report`)."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator
from torch import Tensor

from geodiff.analysis import geometry
from geodiff.output import pictures
from geodiff.report.finding import Picture
from geodiff.report.typeset import mathtext

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BLUE, ORANGE, GREEN, RED = "#2563a8", "#d97706", "#15803d", "#b91c1c"
_INK, _GREY, _LINE = "#22303c", "#5b6773", "#d5dae0"
#: Inches. Narrow, so that letters stay legible where a phone shows the picture 350 pixels wide.
_SIZE = (4.4, 3.1)


def axes(x: str, y: str, *, noise: bool = False) -> tuple[Figure, "Axes"]:
    """An empty diagram; `noise` makes x a noise level: logarithmic, falling to the right as time runs in sampling."""
    figure = Figure(figsize=_SIZE, layout="constrained")
    made = figure.subplots()
    made.spines[["top", "right"]].set_visible(False)
    made.spines[["left", "bottom"]].set_color(_LINE)
    made.grid(True, color=_LINE, linewidth=0.6)
    made.tick_params(which="both", labelsize=9, colors=_GREY, length=0)
    made.set_xlabel(mathtext(x), fontsize=9.5, color=_INK)
    made.set_ylabel(mathtext(y), fontsize=9.5, color=_INK)
    if noise:
        made.set_xscale("log")
        made.xaxis.set_major_formatter(FuncFormatter(lambda sigma, _: f"{sigma:g}"))
        made.xaxis.set_minor_locator(NullLocator())
        made.invert_xaxis()
    return figure, made


def band(to: "Axes", x: Tensor, values: Tensor, label: str, color: str) -> None:
    """The mean over samples of values [S, B] as a line, and the range from the 5th to the 95th percentile as a band."""
    found = geometry.band(values)
    to.fill_between(x.numpy(), found.low.numpy(), found.high.numpy(), color=color, alpha=0.16, linewidth=0)
    line(to, x, found.mean, label, color)


def line(
    to: "Axes", x: Tensor | Sequence[float], y: Tensor | Sequence[float], label: str, color: str, *, under: bool = False
) -> None:
    """A curve with its points marked; broader where another is expected to lie on it (`under`)."""
    width = 4.5 if under else 1.8
    made = to.plot(np.asarray(x), np.asarray(y), color=color, label=label, linewidth=width)
    made[0].set(marker="o", markersize=width + 0.8, alpha=0.55 if under else 1.0)


def drawn(figure: Figure, caption: str) -> Picture:
    """The diagram as a picture, with a legend where it has labels. The same numbers give the same bytes."""
    for made in figure.axes:
        if made.get_legend_handles_labels()[0]:
            legend = made.legend(fontsize=8.5, edgecolor="none", framealpha=0.75, labelcolor=_INK)
            for text in legend.get_texts():
                text.set_text(mathtext(text.get_text()))
    stream = io.BytesIO()
    with rc_context({"svg.hashsalt": "geodiff"}):
        figure.savefig(stream, format="svg", metadata={"Date": None}, transparent=False, facecolor="white")
    return Picture(caption, "image/svg+xml", stream.getvalue())


def image_rows(
    rows: Sequence[tuple[str, Tensor]], columns: Sequence[str], caption: str, *, above: str = "σ", group: int = 1
) -> Picture:
    """Rows of images [n, C, H, W] or [n, H, W] in model space, with a label each, under column labels.

    group: so many rows belong together and stand closer. Raises ValueError for points that are no pictures.
    """
    pictures.check_shape(rows[0][1].shape[1:])
    count, height, width = len(columns), rows[0][1].shape[-2], rows[0][1].shape[-1]
    gap = max(1, width // 14)
    strips = [pictures.tiled(images, gap, columns=count) for _, images in rows]
    sheet, tops = pictures.stacked(strips, gap, 3 * gap, group)
    inches = 7.4
    figure = Figure(figsize=(inches, inches * sheet.shape[0] / sheet.shape[1] * 0.9 + 0.45), layout="constrained")
    made = figure.subplots()
    made.imshow(sheet, interpolation="nearest")
    made.spines[:].set_visible(False)
    made.tick_params(length=0, labelsize=10, labelcolor=_GREY, top=True, labeltop=True, bottom=False, labelbottom=False)
    made.set_xticks([column * (width + gap) + (width - 1) / 2 for column in range(count)], list(columns))
    made.set_yticks([start + (height - 1) / 2 for start in tops], [mathtext(label) for label, _ in rows])
    made.xaxis.set_label_position("top")
    made.set_xlabel(mathtext(above), fontsize=10, color=_INK)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=150, facecolor="white")
    return Picture(caption, "image/png", stream.getvalue(), wide=True)


def numbers(values: Tensor) -> list[Any]:
    """A tensor as plain floats to six digits, for report.json."""
    found: list[Any] = torch.as_tensor(values).double().tolist()
    return [float(f"{value:.6g}") for value in found]
