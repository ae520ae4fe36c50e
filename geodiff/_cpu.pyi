"""Types of the compiled CPU core (csrc/bindings/cpu.cpp). Arrays are passed as addresses."""

from typing import Final

def isas() -> list[str]: ...
def peaks(isa: str, threads: int) -> tuple[float, float, float]: ...
def add_given(
    *,
    isa: str,
    threads: int,
    logits: int,
    values: int,
    shape: tuple[int, int],
    channels: int,
    cut: float,
    sums: tuple[int, ...],
) -> int: ...
def checksum(memory: int, bytes: int, path: str) -> int: ...

class Mapped:
    def __init__(self, memory: int, bytes: int, path: str) -> None: ...
    def check(self) -> None: ...

class Query:
    def __init__(self, isa: str) -> None: ...
    x: int
    single: bool
    sigma: int
    log_prior: int
    log_prior_stride: int
    exclude: int
    batch: int
    begin: int
    end: int
    tol: float
    log_tol: float
    threads: int

class Answer:
    mean: int
    log_sum: int
    entropy: int
    ess: int
    trace: int
    index: int
    weight: int
    path: int
    mean_error: int
    log_error: int

class Local:
    def __init__(self, shape: tuple[int, int, int], strides: tuple[int, int, int]) -> None: ...
    patch: int
    wraps: bool
    mirrored: bool
    crops: bool

class LocalAnswer:
    mean: int
    variance: int
    log_sum: int
    ess: int
    top: int
    path: int

class Subset:
    def __init__(
        self, steps: int, terms: int, places: int, largest: int, additions: int, temperature: float, mirror: int
    ) -> None: ...

class Statistics:
    def __init__(self, n: int, d: int) -> None: ...
    def look(self, rows: int, dtype: int, path: str, threads: int, count: int) -> None: ...
    seen: int
    numbers: list[float]
    half_norm: Final[int]
    half_away: Final[int]
    away: Final[int]
    mean: Final[int]

class Memory:
    def __init__(self, batch: int, prepared: bool = False) -> None: ...
    def known(self, q: int) -> tuple[list[int], list[float], float, float]: ...
    def products(self, q: int) -> tuple[list[float], list[float], int, int]: ...

class Data:
    def __init__(self, rows: int, dtype: int, n: int, d: int, path: str, found: Statistics) -> None: ...
    def mean(self, out: int) -> None: ...
    def reach(self) -> float: ...
    def shape(self, isa: str, threads: int) -> None: ...
    shaped: Final[bool]
    coordinates_bytes: Final[int]
    def write_coordinates(self, to: int) -> None: ...
    def read_coordinates(self, from_: int, /) -> None: ...
    def posterior(self, query: Query, topk: int, answer: Answer) -> None: ...
    def combine(
        self,
        query: Query,
        gain: float,
        terms: list[tuple[float, int]],
        out: int,
        memory: Memory | None,
        told: tuple[int, int],
    ) -> int: ...
    def covariance(self, query: Query, mean: int, v: int, slope: int, with_rows: int, with_distance: int) -> None: ...
    def draw(self, query: Query, count: int, uniform: int, index: int) -> None: ...
    def local(self, query: Query, local: Local, answer: LocalAnswer) -> None: ...
    def subset(self, query: Query, subset: Subset, mean: int, held: int) -> None: ...
    def inner_products(self, query: Query, out: int) -> None: ...
    def weighted_mean(self, query: Query, logits: int, mean: int) -> None: ...
    def squared_distances(self, query: Query, candidates: int, width: int, out: int) -> None: ...
