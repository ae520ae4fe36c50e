"""The one table that says which backend serves which call: the first line that fits and can be used here is taken."""

from dataclasses import dataclass

import torch

from geodiff.base.dtypes import STORED

UINT8 = frozenset({torch.uint8})
ANY = frozenset(STORED)


@dataclass(frozen=True)
class Rule:
    """One line: data that lie on `device`, with a reason for people and where its thresholds come from.

    dtypes     storage dtypes it takes
    largest_b  queries per call up to which it is meant; None: any, also when the number is not known beforehand
    largest_d  numbers per data point up to which it is meant; None: any
    one_pass   only where `cuda.streams`: where the GPU has the shared memory for it
    dense      only where `cuda.dense`: where the GPU has what that pass takes
    measured   the file of the measurement behind the thresholds, and what it says; empty where there is no threshold
    """

    backend: str
    device: str
    dtypes: frozenset[torch.dtype]
    why: str
    largest_b: int | None = None
    largest_d: int | None = None
    one_pass: bool = False
    dense: bool = False
    measured: str = ""

    def fits(self, device: str, dtype: torch.dtype | None, d: int | None, batch: int | None) -> bool:
        """Whether data [N, d] of `dtype` on `device` with `batch` queries per call is what this line is for.

        `one_pass` and `dense` are not looked at: they take the device itself.
        What is not known (None) must not matter to the line. No line depends on N: every backend reads all rows.
        """
        return (
            self.device == device
            and (self.dtypes == ANY or dtype in self.dtypes)
            and (self.largest_b is None or (batch is not None and batch <= self.largest_b))
            and (self.largest_d is None or (d is not None and d <= self.largest_d))
        )

    def limits(self) -> str:
        """The line's conditions beside the device, as one reads them."""
        parts = [] if self.dtypes == ANY else [", ".join(sorted(str(t).removeprefix("torch.") for t in self.dtypes))]
        if self.largest_b is not None:
            parts.append(f"B ≤ {self.largest_b:,}")
        if self.largest_d is not None:
            parts.append(f"d ≤ {self.largest_d:,}")
        if self.one_pass:
            parts.append("where the GPU's shared memory holds a tile")
        if self.dense:
            parts.append("compute capability 9.0, rows of a multiple of 16 bytes")
        return ", ".join(parts) or "any dtype, B, N, d"


TABLE = (
    Rule("cpu", "cpu", ANY, "compiled for this processor's instruction set"),
    Rule("cuda", "cuda", UINT8, "both products on tensor cores, and nothing that waits for the device", dense=True),
    Rule(
        "cuda",
        "cuda",
        UINT8,
        "one pass over the bytes, and nothing that waits for the device",
        largest_b=64,
        largest_d=3072,
        one_pass=True,
        measured="bench/results/gpu_h100_first.json: 4.8 ms against 6.8 at B = 64, 19 against 12 at 256",
    ),
    Rule("triton", "cuda", ANY, "bound by arithmetic: both products on tensor cores"),
    # Floats have no tensor-core path there: every query reads every row in float64.
    Rule("cuda", "cuda", ANY, "where Triton is not installed; slow for floats, which it sums in float64"),
    Rule("reference", "cpu", ANY, "where no compiled core loads"),
    Rule("reference", "cuda", ANY, "where no GPU kernels can be used"),
)
