"""The solvers by the names that `sample` and the command line take."""

from geodiff.solvers.evaluation import Step
from geodiff.solvers.steps.dpm_solver_pp import dpm_solver_pp_2m
from geodiff.solvers.steps.euler import euler
from geodiff.solvers.steps.heun import heun
from geodiff.solvers.steps.multistep import deis, ipndm
from geodiff.solvers.steps.two_stage import dpm_solver_2, one_parameter

_FAMILY = "one-parameter"

SOLVERS: dict[str, Step] = {
    "euler": euler,
    "heun": heun,
    "dpm2": dpm_solver_2,
    _FAMILY: one_parameter(2 / 3),  # Ralston's choice, the smallest bound on the error of a step
    "ipndm2": ipndm(2),
    "ipndm3": ipndm(3),
    "ipndm4": ipndm(4),
    "deis1": deis(1),
    "deis2": deis(2),
    "deis3": deis(3),
    "dpmpp2m": dpm_solver_pp_2m,
}

ALLOWED = f"{', '.join(SOLVERS)}, {_FAMILY}:Q with 0 < Q <= 1"


def find_solver(solver: str | Step) -> tuple[Step, str]:
    """The step function, and what to call it. Raises ValueError for an unknown name, TypeError for something else."""
    allowed = f"{ALLOWED}, or a step function"
    if isinstance(solver, str):
        if solver in SOLVERS:
            return SOLVERS[solver], solver
        family, _, q = solver.partition(":")
        if family == _FAMILY:
            return one_parameter(_number(q, solver)), solver
        raise ValueError(f"solver: expected a known name, found {solver!r}; allowed {allowed}")
    if not callable(solver):
        raise TypeError(f"solver: expected a name or a function, found {type(solver).__name__}; allowed {allowed}")
    return solver, getattr(solver, "__name__", type(solver).__name__)


def _number(text: str, solver: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"solver: expected a number after the colon, found {solver!r}; allowed {ALLOWED}") from None
