"""Instructions per multiply-add of the integer inner loops, counted in what the compiler emitted.

    python bench/inner_loops.py [OBJECT ...] [--all] [--json]

Objects are those of csrc/cpu/isa; without any, what `make install` and `make test-arm` have left in build/. A table has
the leanest loop of each product, which is the one for many queries; --all lists every loop. The exit status is 1 where
a loop touches the stack at a fixed place: a number that no register was left for.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# Multiply-adds of one instruction, by its name and the width of its registers in bits.
X86 = {"vpmaddwd": 16, "vpdpbusd": 8}  # bits of a multiply-add
ARM = {"smlal": 4, "smlal2": 4, "udot": 16, "sdot": 16, "usdot": 16, "ummla": 32, "smmla": 32, "usmmla": 32}
WIDTH = {"x": 128, "y": 256, "z": 512}
PRODUCT = {"dot": "first", "sum": "second", "multiply": "in lanes", "listed": "listed"}

_FUNCTION = re.compile(r"^[0-9a-f]+ <(.*)>:$")
_LINE = re.compile(r"^\s*([0-9a-f]+):\s+(?:[0-9a-f]{8}\s+)?(?:\{\w+\}\s+)?(\S+)\s*(.*)$")
_NAMED = re.compile(r"\b(dot|sum|listed|multiply)_(?:\w+_)?(?:bytes|halves|matrices|lanes)\b")
_AIM = re.compile(r"(?:^|[\s,])([0-9a-f]+)\s+<")


@dataclass
class Loop:
    isa: str
    product: str  # first, second
    function: str
    instructions: int
    multiply_adds: int
    on_stack: list[str]

    @property
    def each(self) -> float:
        return self.instructions / self.multiply_adds


@dataclass
class Instruction:
    at: int
    name: str
    operands: str

    @property
    def aim(self) -> int | None:
        """Where a jump goes, None for what is no jump within the function."""
        if not (self.name.startswith("j") or re.fullmatch(r"b(\.\w+)?|cbn?z|tbn?z", self.name)):
            return None
        found = _AIM.search(self.operands)
        return int(found[1], 16) if found else None

    @property
    def ends(self) -> bool:
        """Nothing goes on behind it."""
        return self.name.startswith("ret") or self.name in ("jmp", "b", "br", "ud2", "brk")

    @property
    def multiply_adds(self) -> int:
        if self.name in ARM and re.match(r"v\d+\.", self.operands):
            return ARM[self.name]
        register = re.search(r"%([xyz])mm\d+$", self.operands)
        return WIDTH[register[1]] // X86[self.name] if self.name in X86 and register else 0

    @property
    def on_stack(self) -> bool:
        """A fixed place there; an index or a pointer that walks is an array that lies there, as it should."""
        return bool(re.search(r"\(%r[sb]p\)|\[(sp|x29)[,\]]", self.operands)) and not self.name.startswith("lea")


def objdump(path: Path) -> str:
    """The disassembly of one object, by the binutils of its machine."""
    with path.open("rb") as file:
        head = file.read(20)
    if head[:4] != b"\x7fELF":
        raise ValueError(f"{path}: found no ELF object; objects of Linux are allowed")
    arm = int.from_bytes(head[18:20], "little") == 183
    names = ["aarch64-linux-gnu-objdump"] if arm else ["x86_64-linux-gnu-objdump"]
    tool = next((name for name in [*names, "objdump"] if shutil.which(name)), None)
    if tool is None:
        raise FileNotFoundError(f"{names[0]}: not found; binutils for this machine's objects are needed")
    return subprocess.run(
        [tool, "-dC", "--no-show-raw-insn", str(path)], check=True, capture_output=True, text=True
    ).stdout


def functions(text: str) -> dict[str, list[Instruction]]:
    found: dict[str, list[Instruction]] = {}
    body: list[Instruction] = []
    for line in text.splitlines():
        if head := _FUNCTION.match(line):
            body = found.setdefault(head[1], [])
        elif part := _LINE.match(line):
            body.append(Instruction(int(part[1], 16), part[2], part[3].strip()))
    return found


def natural_loops(body: list[Instruction]) -> list[set[int]]:
    """The innermost loops, each the places of its instructions: jumps back to what every way there leads through."""
    place = {instruction.at: n for n, instruction in enumerate(body)}
    starts = {0}
    for n, i in enumerate(body):
        if i.aim is not None:
            starts.add(n + 1)
            if i.aim in place:
                starts.add(place[i.aim])
        elif i.ends:
            starts.add(n + 1)
    order = sorted(n for n in starts if n < len(body))
    block = {start: k for k, start in enumerate(order)}
    spans = [range(a, b) for a, b in zip(order, [*order[1:], len(body)], strict=True)]
    after: list[list[int]] = []
    for k, span in enumerate(spans):
        last = body[span[-1]]
        to = [block[place[last.aim]]] if last.aim is not None and last.aim in place else []
        after.append(to if last.ends or k + 1 == len(spans) else [*to, k + 1])
    before: list[list[int]] = [[] for _ in spans]
    for k, to in enumerate(after):
        for t in to:
            before[t].append(k)
    full = (1 << len(spans)) - 1  # sets of blocks as bits
    dominators = [full] * len(spans)
    dominators[0], changed = 1, True
    while changed:
        changed = False
        for k in range(1, len(spans)):
            new = full
            for p in before[k]:
                new &= dominators[p]
            new |= 1 << k
            changed |= new != dominators[k]
            dominators[k] = new
    reached, left = set(), [0]
    while left:
        if (at := left.pop()) not in reached:
            reached.add(at)
            left += after[at]
    loops: dict[int, set[int]] = {}
    for k, to in enumerate(after):
        for head in to:
            if k in reached and dominators[k] >> head & 1:
                inside = loops.setdefault(head, {head})
                left = [k]
                while left:
                    at = left.pop()
                    if at not in inside:
                        inside.add(at)
                        left += before[at]
    heads = set(loops)
    return [{n for k in inside for n in spans[k]} for head, inside in loops.items() if not (heads - {head}) & inside]


def loops_of(isa: str, text: str) -> list[Loop]:
    loops = []
    for name, body in functions(text).items():
        kind = _NAMED.search(name)
        if kind is None:
            continue
        # Frames are reached through %rbp where it was set from the stack pointer; else it is a register like others.
        framed = any(i.name == "mov" and i.operands == "%rsp,%rbp" for i in body)
        for places in natural_loops(body):
            inside = [body[n] for n in sorted(places)]
            work = sum(i.multiply_adds for i in inside)
            if not work:
                continue
            stack = [f"{i.name} {i.operands}" for i in inside if i.on_stack and (framed or "(%rbp)" not in i.operands)]
            short = re.sub(r"\(anonymous namespace\)::|\(.*|void ", "", name)
            loops.append(Loop(isa, PRODUCT[kind[1]], short, len(inside), work, stack))
    return loops


def built() -> list[Path]:
    """Objects of instruction sets in build/, the newest of each name and machine."""
    newest: dict[tuple[str, bytes], Path] = {}
    for path in sorted(ROOT.glob("build/*/csrc/cpu/**/isa/*.o"), key=lambda p: p.stat().st_mtime):
        if path.name.startswith("dispatch"):
            continue
        with path.open("rb") as file:
            newest[path.name, file.read(20)[18:20]] = path
    return list(newest.values())


def name_of(path: Path) -> str:
    return path.name.split(".")[0]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Instructions per multiply-add of the integer inner loops.")
    parser.add_argument("objects", nargs="*", type=Path, help="object files of csrc/cpu/isa (default: those in build/)")
    parser.add_argument("--all", action="store_true", help="every loop, not only the leanest of each product")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(arguments)
    loops = [loop for path in given.objects or built() for loop in loops_of(name_of(path), objdump(path))]
    if given.json:
        print(json.dumps([asdict(loop) | {"each": loop.each} for loop in loops], indent=1))
    elif given.all:
        for loop in sorted(loops, key=lambda loop: (loop.isa, loop.product, loop.each)):
            print(
                f"{loop.isa:14} {loop.product:7} {loop.each:.4f} {loop.instructions:4} / {loop.multiply_adds:5}  ",
                end="",
            )
            print(loop.function + (f"  STACK {len(loop.on_stack)}" if loop.on_stack else ""))
    else:
        print("| instruction set | first product | second product | in lanes | listed rows |\n|---|---|---|---|---|")
        for isa in dict.fromkeys(loop.isa for loop in loops):
            cells = [
                min((loop.each for loop in loops if (loop.isa, loop.product) == (isa, product)), default=None)
                for product in PRODUCT.values()
            ]
            shown = ("none" if cell is None else f"{cell:.3f}" for cell in cells)
            print(f"| `{isa}` | {' | '.join(shown)} |")
    spilled = [loop for loop in loops if loop.on_stack]
    for loop in spilled:
        print(f"{loop.isa}: {loop.function} touches the stack: {'; '.join(loop.on_stack)[:200]}", file=sys.stderr)
    return 1 if spilled else 0


if __name__ == "__main__":
    sys.exit(main())
