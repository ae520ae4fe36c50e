"""Types of the compiled GPU core (csrc/bindings/cuda.cpp). Arrays are device addresses, streams are integers."""

def runtime() -> int: ...
def driver() -> int: ...
def plan(
    multiprocessors: int, shared: int, clusters: bool, dtype: int, n: int, d: int, batch: int, dense: bool = False
) -> Plan: ...
def dense(device: int, dtype: int, d: int, batch: int) -> bool: ...
def streams(device: int, dtype: int, d: int, batch: int) -> bool: ...

class Plan:
    @property
    def dense(self) -> bool: ...
    @property
    def shares(self) -> int: ...
    @property
    def workspace(self) -> int: ...
    @property
    def streams(self) -> bool: ...
    @property
    def batch(self) -> int: ...
    @property
    def queries(self) -> int: ...
    @property
    def cluster(self) -> int: ...
    @property
    def stages(self) -> int: ...
    @property
    def slice(self) -> int: ...
    @property
    def parts(self) -> int: ...
    @property
    def exact_parts(self) -> int: ...

class Arguments:
    def __init__(
        self,
        x: int,
        single: bool,
        sigma: int,
        bias: int,
        bias_stride: int,
        exclude: int,
        batch: int,
        begin: int,
        end: int,
        tol: float,
        list: int = 0,
        listed: int = 0,
    ) -> None: ...

LOT: int

class Data:
    def __init__(
        self,
        rows: int,
        dtype: int,
        n: int,
        d: int,
        half_norm: int,
        radius: float,
        max_norm: float,
        max_model_norm: float,
        device: int,
    ) -> None: ...
    def plan(self, rows: int, batch: int) -> Plan: ...
    def posterior(
        self,
        arguments: Arguments,
        plan: Plan,
        workspace: int,
        mean: int,
        log_sum: int,
        entropy: int,
        ess: int,
        mean_bias: int,
        path: int,
        stream: int,
    ) -> None: ...
    def covariance(
        self,
        arguments: Arguments,
        mean: int,
        v: int,
        along: int,
        parts: int,
        sums: int,
        states: int,
        with_rows: int,
        with_far: int,
        stream: int,
    ) -> None: ...
    def masses(self, arguments: Arguments, top: int, mass: int, stream: int) -> None: ...
    def picks(
        self, arguments: Arguments, top: int, lot: int, target: int, count: int, row: int, stream: int
    ) -> None: ...
    def combine(
        self,
        mean: int,
        gain: float,
        factors: list[float],
        terms: list[int],
        out: int,
        size: int,
        single: bool,
        stream: int,
    ) -> None: ...
    def distances(self, x: int, batch: int, begin: int, end: int, out: int, stream: int) -> None: ...
    def listed_distances(self, x: int, list: int, batch: int, listed: int, out: int, stream: int) -> None: ...
    def inner_products(self, x: int, batch: int, begin: int, end: int, out: int, stream: int) -> None: ...
    def weighted_sum(
        self, weights: int, batch: int, begin: int, end: int, parts: int, out: int, stream: int
    ) -> None: ...
