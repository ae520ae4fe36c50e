"""`geodiff convert`: any data set as one memory-mapped .npy, piece by piece, going on after an interruption."""

from pathlib import Path
from typing import Annotated

import typer

from geodiff.base.arguments import check_integer
from geodiff.cli.console import print_summary, progress_bar
from geodiff.cli.options import Data, Json
from geodiff.data import convert as write


def convert(
    data: Data,
    out: Annotated[
        Path, typer.Option("--out", metavar="NAME.npy", help="File to write; labels go to NAME_labels.npy.")
    ],
    split: Annotated[str, typer.Option("--split", help="train or test, for sources that have both.")] = "train",
    mode: Annotated[
        str | None, typer.Option("--mode", help="L or RGB: what pictures become.", show_default="as they are")
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(
            "--key",
            metavar="NAME",
            help="The array with the points in a .npz, .safetensors or .pt.",
            show_default="data, images, x or arr_0",
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", help="The first so many points.", show_default="all")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Taken by every command; nothing is random here.")] = 0,
    json: Json = False,
) -> None:
    """Write any data set as one .npy that is mapped into memory; run again to go on after an interruption."""
    if limit is not None:
        check_integer(limit, "limit", 1)
    with progress_bar() as bar:
        task = bar.add_task("points", total=None)
        found = write(
            data,
            out,
            split=split,
            mode=mode,
            key=key,
            limit=limit,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    document = {
        "data": data,
        "out": str(out),
        "N": len(found),
        "shape": list(found.data.shape[1:]),
        "dtype": str(found.data.dtype).removeprefix("torch."),
        "labels": found.labels is not None,
        "bytes": out.stat().st_size,
    }
    print_summary(str(out), document, as_json=json)
