"""No long argument lists: what belongs together goes down as one object."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MOST = 6
#: Entry points with named options, which nobody passes on; everything else has at most MOST arguments of any kind.
OPEN = {
    "LocalDenoiser.__init__",
    "OptimalDenoiser.__init__",
    "OptimalDenoiser.combine",
    "ShardedDenoiser.__init__",
    "analysis.interpolation.decode",
    "analysis.symmetry.late_start",
    "data.conversion.convert",
    "measure.check.run",
    "measure.demo.run",
    "report.assembly.run",
    "solvers.jump.ode_jump",
    "solvers.sampling.sample",
}


def signatures() -> dict[str, tuple[int, int]]:
    """module.function or Class.method -> (arguments that may be given by place, all arguments), self aside."""
    found: dict[str, tuple[int, int]] = {}

    def walk(body: list[ast.stmt], owner: str) -> None:
        for node in body:
            if isinstance(node, ast.ClassDef):
                walk(node.body, node.name)
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                given = [a.arg for a in (*node.args.posonlyargs, *node.args.args) if a.arg not in ("self", "cls")]
                found[f"{owner}.{node.name}"] = len(given), len(given) + len(node.args.kwonlyargs)
                walk(node.body, f"{owner}.{node.name}")

    for path in sorted((ROOT / "geodiff").rglob("*.py")):
        if "cli" in path.parts:  # a command's options are its arguments
            continue
        name = ".".join(path.relative_to(ROOT / "geodiff").with_suffix("").parts)
        walk(ast.parse(path.read_text(encoding="utf-8")).body, name)
    return found


def test_argument_lists_are_short() -> None:
    found = signatures()
    long = {name: counts for name, counts in found.items() if counts[1] > MOST and name not in OPEN}
    assert long == {}
    assert {name: found[name][0] for name in OPEN if found[name][0] > MOST} == {}


def test_the_exceptions_are_ones() -> None:
    found = signatures()
    assert {name for name in OPEN if name not in found or found[name][1] <= MOST} == set()
