"""What every test starts from: the same random numbers and the same number of threads."""

from collections.abc import Iterator

import pytest
import torch

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
    """Moves LONGEST to the front; otherwise the order stays."""
    items.sort(key=lambda item: not any(f"tests/{name}" in item.path.as_posix() for name in LONGEST))


@pytest.fixture(autouse=True)
def _same_start() -> Iterator[None]:
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
