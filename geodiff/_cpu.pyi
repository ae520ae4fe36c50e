"""Types of the compiled CPU core (csrc/bindings/cpu.cpp). Arrays are passed as addresses."""

def isas() -> list[str]: ...

class Data:
    def __init__(self, rows: int, dtype: int, n: int, d: int, threads: int) -> None: ...
    def mean(self, out: int) -> None: ...
    def inner_products(self, isa: str, x: int, batch: int, threads: int, out: int) -> None: ...
    def weighted_mean(self, isa: str, logits: int, batch: int, tol: float, threads: int, mean: int) -> None: ...
    def squared_distances(
        self, isa: str, x: int, candidates: int, batch: int, width: int, threads: int, out: int
    ) -> None: ...
    def posterior(
        self,
        query: Query,
        isa: str,
        topk: int,
        mean: int,
        log_sum: int,
        entropy: int,
        ess: int,
        trace: int,
        index: int,
        weight: int,
        path: int,
    ) -> None: ...
    def combine(
        self, query: Query, isa: str, out: int, gain: float, factors: list[float], terms: list[int], path: int
    ) -> None: ...
    def covariance(
        self, query: Query, isa: str, mean: int, v: int, slope: int, with_rows: int, with_distance: int
    ) -> None: ...
    def draw(self, query: Query, isa: str, count: int, uniform: int, index: int) -> None: ...

class Query:
    def __init__(
        self,
        x: int,
        single: bool,
        sigma: int,
        bias: int,
        bias_stride: int,
        batch: int,
        begin: int,
        end: int,
        tol: float,
        threads: int,
    ) -> None: ...
