"""Loops of machine code, as `cuobjdump -sass` prints it."""

import re

PRODUCT = re.compile(r"\b([HI]G?MMA\.\S+)")


def loops_with_products(code: str) -> list[list[str]]:
    """Of `loops` those that hold tensor-core products."""
    return [body for body in loops(code) if any(PRODUCT.search(text) for text in body)]


def loops(code: str) -> list[list[str]]:
    """The instructions of each loop of one kernel, in the order of their ends."""
    found = re.findall(r"^\s+/\*([0-9a-f]{4,})\*/\s+(.*?);", code, re.MULTILINE)
    instructions = [(int(address, 16), text) for address, text in found]
    at = {address: place for place, (address, _) in enumerate(instructions)}
    found_loops = []
    for place, (address, text) in enumerate(instructions):
        target = re.search(r"\bBRA\b.*?0x([0-9a-f]+)", text)
        if target and (first := int(target[1], 16)) <= address and first in at:
            found_loops.append([text for _, text in instructions[at[first] : place + 1]])
    return found_loops


def innermost(loops: list[list[str]]) -> list[list[str]]:
    """Those among them that hold no other one: of each product the shortest loop that has it."""
    kinds = {tuple(kinds_of(loop)): loop for loop in sorted(loops, key=len, reverse=True)}
    return [loop for kinds_here, loop in kinds.items() if len(kinds_here) == 1]


def kinds_of(loop: list[str]) -> list[str]:
    """Which products a loop has, each once: IMMA.16832.U8.U8."""
    return sorted({found[1] for text in loop if (found := PRODUCT.search(text))})


def products_of(loop: list[str]) -> int:
    return sum(bool(PRODUCT.search(text)) for text in loop)
