"""Types of the compiled CPU core (csrc/bindings/cpu.cpp). Arrays are passed as addresses."""

def isas() -> list[str]: ...

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

class Data:
    def __init__(self, rows: int, dtype: int, n: int, d: int, threads: int) -> None: ...
    def mean(self, out: int) -> None: ...
    def posterior(self, query: Query, topk: int, answer: Answer) -> None: ...
    def combine(
        self, query: Query, gain: float, factors: list[float], terms: list[int], out: int, path: int
    ) -> None: ...
    def covariance(self, query: Query, mean: int, v: int, slope: int, with_rows: int, with_distance: int) -> None: ...
    def draw(self, query: Query, count: int, uniform: int, index: int) -> None: ...
    def inner_products(self, query: Query, out: int) -> None: ...
    def weighted_mean(self, query: Query, logits: int, mean: int) -> None: ...
    def squared_distances(self, query: Query, candidates: int, width: int, out: int) -> None: ...
