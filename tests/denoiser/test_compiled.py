"""torch.compile and torch.export: one graph for all batch sizes, and data that go along."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

import geodiff
from tests.denoiser.compiled_graphs import Graphs
from tests.processes import run

pytestmark = [
    pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:`isinstance\\(treespec, LeafSpec\\)`:FutureWarning"),
]


@pytest.fixture(autouse=True)
def _fresh() -> None:
    torch._dynamo.reset()


@pytest.mark.parametrize("labelled", [False, True])
def test_one_graph_serves_every_batch_size(labelled: bool) -> None:
    options = {"labels": torch.arange(200) % 3} if labelled else {}
    denoiser = geodiff.OptimalDenoiser(2 * torch.rand(200, 3, 4, 4) - 1, **options)
    graphs = Graphs()
    compiled = torch.compile(denoiser, backend=graphs, fullgraph=True, dynamic=True)
    for batch in range(2, 13):
        x = torch.randn(batch, 3, 4, 4)
        given = (torch.arange(batch) % 3,) if labelled else ()
        assert torch.equal(compiled(x, torch.tensor(1.0), *given), denoiser(x, torch.tensor(1.0), *given))
    assert graphs.count == 1


def export(denoiser: geodiff.OptimalDenoiser) -> torch.export.ExportedProgram:
    batch = torch.export.Dim("batch", min=1, max=64)
    shapes = ({0: batch}, None)
    return torch.export.export(denoiser, (torch.ones(3, 2), torch.tensor(1.0)), dynamic_shapes=shapes)


def test_an_exported_program_takes_any_batch() -> None:
    denoiser = geodiff.OptimalDenoiser(torch.randn(50, 2), log_weights=torch.randn(50))
    program = export(denoiser).module()
    for batch in (1, 2, 17):
        x = torch.randn(batch, 2)
        assert torch.equal(program(x, torch.tensor(0.7)), denoiser(x, torch.tensor(0.7)))


def test_an_exported_program_carries_its_data(tmp_path: Path) -> None:
    denoiser = geodiff.OptimalDenoiser(torch.randn(50, 2))
    x = torch.randn(4, 2)
    expected = denoiser(x, torch.tensor(0.7))
    torch.export.save(export(denoiser), tmp_path / "program.pt2")
    torch.save((x, expected), tmp_path / "answer.pt")
    code = """
        import sys, torch, geodiff
        other = geodiff.OptimalDenoiser(torch.full((50, 2), 9.0))  # the first of its process, as the exported one was
        x, expected = torch.load(sys.argv[2])
        found = torch.export.load(sys.argv[1]).module()(x, torch.tensor(0.7))
        assert torch.allclose(found, expected, atol=1e-6), (found, expected)
    """
    done = run(tmp_path / "program.pt2", tmp_path / "answer.pt", code=code)
    assert done.returncode == 0, done.stderr


def test_two_compiled_denoisers_keep_apart() -> None:
    x = torch.randn(4, 2)

    def answered(data: Tensor) -> Tensor:
        return torch.compile(geodiff.OptimalDenoiser(data), backend="eager", fullgraph=True)(x, torch.tensor(1.0))

    assert answered(torch.zeros(10, 2)).abs().max() == 0
    assert torch.equal(answered(torch.ones(10, 2)), torch.ones(4, 2))


def test_a_compiled_denoiser_follows_changes_of_its_data() -> None:
    data, x = torch.zeros(10, 2), torch.randn(4, 2)
    compiled = torch.compile(geodiff.OptimalDenoiser(data), backend="eager", fullgraph=True)
    assert compiled(x, torch.tensor(1.0)).abs().max() == 0
    data.fill_(0.5)
    assert torch.equal(compiled(x, torch.tensor(1.0)), torch.full((4, 2), 0.5))
    data.numpy()[:] = 3
    with pytest.raises(Exception, match="data: expected as they were"):
        compiled(x, torch.tensor(1.0))
