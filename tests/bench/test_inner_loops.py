"""bench/inner_loops.py: loops are found and counted, the stack is seen, and no loop of this build touches it."""

import shutil
from types import ModuleType

import pytest

from tests.bench.scripts import loaded


@pytest.fixture(scope="module")
def inner_loops() -> ModuleType:
    return loaded("inner_loops")


X86 = """
0000000000000000 <void (anonymous namespace)::dot_block_halves<V>(unsigned char const*)>:
   0:\tje     1c <void (anonymous namespace)::dot_block_halves<V>(unsigned char const*)+0x1c>
   2:\tvpmaddwd (%rdi,%rax,1),%ymm1,%ymm2
   8:\tvpaddd %ymm2,%ymm0,%ymm0
   c:\t{LOAD}
  12:\tadd    $0x20,%rax
  16:\tcmp    %rax,%rdx
  19:\tjne    2 <void (anonymous namespace)::dot_block_halves<V>(unsigned char const*)+0x2>
  1b:\tret
  1c:\tvpmaddwd 0x8(%rsp),%ymm1,%ymm2
  22:\tjmp    1b <void (anonymous namespace)::dot_block_halves<V>(unsigned char const*)+0x1b>
"""

ARM = """
0000000000000000 <void (anonymous namespace)::sum_block_bytes<V>(unsigned char const*)>:
   0:\tmov\tx3, #0x0
   4:\tldr\tq0, [x1], #16
   8:\tudot\tv2.4s, v0.16b, v1.4b[2]
   c:\tcmp\tx1, x2
  10:\tb.ne\t4 <void (anonymous namespace)::sum_block_bytes<V>(unsigned char const*)+0x4>  // b.any
  14:\tret
"""


@pytest.mark.parametrize(
    ("load", "stack"), [("nop", 0), ("vmovdqa 0x40(%rsp),%ymm3", 1), ("vmovdqa (%rsp,%rax,1),%ymm3", 0)]
)
def test_a_loop_of_x86(inner_loops: ModuleType, load: str, stack: int) -> None:
    (loop,) = inner_loops.loops_of("avx2", X86.replace("{LOAD}", load))
    assert (loop.product, loop.instructions, loop.multiply_adds) == ("first", 6, 16)
    assert len(loop.on_stack) == stack


def test_a_loop_of_arm(inner_loops: ModuleType) -> None:
    (loop,) = inner_loops.loops_of("neon_dotprod", ARM)
    assert (loop.product, loop.instructions, loop.multiply_adds, loop.on_stack) == ("second", 4, 16, [])


def test_no_loop_of_this_build_touches_the_stack(inner_loops: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    if shutil.which("objdump") is None or not inner_loops.built():
        pytest.skip("no objdump, or no objects in build/: the package was built elsewhere")
    assert inner_loops.main([]) == 0, capsys.readouterr().err
    for line in capsys.readouterr().out.splitlines()[2:]:
        isa, *cells = line.strip("| ").split(" | ")
        expected = [isa != "`portable`"] * 4
        assert [cell != "none" for cell in cells] == expected, line
