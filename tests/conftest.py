"""What every test starts from: the installed package, the same random numbers and the same number of threads."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch._functorch.config

# The folder that tests/ lies in comes last, for tests and for what they start: the geodiff in it has a compiled core
# only where it is what was installed, and an unpacked sdist tests what `pip install` made of it. It is there at all
# because processes that compile kernels in parallel import their work from tests/.
ROOT = Path(__file__).resolve().parents[1]
sys.path[:] = [*(entry for entry in sys.path if Path(entry or ".").resolve() != ROOT), str(ROOT)]
os.environ.setdefault("PYTHONSAFEPATH", "1")

# A job in the background, and what it starts, ignores Ctrl-C: the tests that send it would wait for their time limits.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# PyTorch only warns of outputs of an operator that share memory, unless CI is in the environment. Absent in old ones.
if hasattr(torch._functorch.config, "error_on_custom_op_aliasing"):
    torch._functorch.config.error_on_custom_op_aliasing = True

#: What takes longest for its number of tests: begun first, so that no process is left with it at the end.
LONGEST = (
    "kernels/test_interpreted.py",
    "cuda/",
    "backends/test_cuda_build.py",
    "report/",
    "learned/",
    "cli/test_train",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Moves LONGEST to the front, in its order; otherwise the order stays."""

    def place(item: pytest.Item) -> int:
        path = item.path.as_posix()
        return next((place for place, name in enumerate(LONGEST) if f"tests/{name}" in path), len(LONGEST))

    items.sort(key=place)


@pytest.fixture(autouse=True)
def _same_start() -> Iterator[None]:
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
