"""Types of the compiled GPU core (csrc/bindings/cuda.cpp). Arrays are device addresses, streams are integers."""

from typing import Final

def runtime() -> int: ...
def driver() -> int: ...
def plan(machine: Machine, dtype: int, shape: tuple[int, int], batch: int) -> Plan: ...
def dense(device: int, dtype: int, d: int, batch: int) -> bool: ...
def streams(device: int, dtype: int, d: int, batch: int) -> bool: ...

class Machine:
    def __init__(
        self, multiprocessors: int, shared: int, clusters: bool, dense: bool = False, pass_: int = 0
    ) -> None: ...

class Plan:
    dense: Final[bool]
    fused: Final[bool]
    shares: Final[int]
    workspace: Final[int]
    streams: Final[bool]
    batch: Final[int]
    queries: Final[int]
    cluster: Final[int]
    stages: Final[int]
    slice: Final[int]
    parts: Final[int]
    exact_parts: Final[int]

class Arguments:
    x: int
    single: bool
    sigma: int
    bias: int
    bias_stride: int
    exclude: int
    batch: int
    begin: int
    end: int
    tol: float
    list: int
    listed: int

class Result:
    mean: int
    log_sum: int
    entropy: int
    ess: int
    mean_bias: int
    path: int

class Covariance:
    mean: int
    v: int
    along: int
    parts: int
    sums: int
    states: int
    with_rows: int
    with_far: int

class Masses:
    top: int
    mass: int

class Picks:
    top: int
    lot: int
    target: int
    count: int
    row: int

class Combined:
    mean: int
    gain: float
    terms: list[tuple[float, int]]
    out: int
    size: int
    single: bool

class Products:
    numbers: int
    batch: int
    begin: int
    end: int
    list: int
    out: int

LOT: int

class Data:
    def __init__(
        self,
        rows: int,
        dtype: int,
        shape: tuple[int, int],
        half_norm: int,
        radii: tuple[float, float, float],
        device: int,
        pass_: int = 0,
    ) -> None: ...
    def plan(self, rows: int, batch: int) -> Plan: ...
    def posterior(self, arguments: Arguments, plan: Plan, workspace: int, result: Result, stream: int) -> None: ...
    def covariance(self, arguments: Arguments, covariance: Covariance, stream: int) -> None: ...
    def masses(self, arguments: Arguments, masses: Masses, stream: int) -> None: ...
    def picks(self, arguments: Arguments, picks: Picks, stream: int) -> None: ...
    def combine(self, combined: Combined, stream: int) -> None: ...
    def distances(self, products: Products, stream: int) -> None: ...
    def inner_products(self, products: Products, stream: int) -> None: ...
    def weighted_sum(self, products: Products, parts: int, stream: int) -> None: ...
