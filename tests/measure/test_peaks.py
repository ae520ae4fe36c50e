"""What the machine could do is more than what our calls do, on every instruction set."""

import pytest
import torch

from geodiff import OptimalDenoiser
from geodiff.backends import cpu
from geodiff.base.errors import BackendUnavailable
from geodiff.measure.peaks import calls, peaks

DATA = torch.randint(0, 256, (2000, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("isa", cpu.isas())
def test_no_call_beats_the_peak(isa: str) -> None:
    limits = peaks(isa)
    assert limits.float32 > 0.1
    assert limits.read > 0.1
    assert limits.integer is None or limits.integer > 0.1
    (call,) = calls(OptimalDenoiser(DATA, backend="cpu"), limits, [(40.0, 64)], rounds=2)
    assert 0 < call.share < 1.2  # another program may have slowed the peak down and not the call
    assert call.products == pytest.approx(2 * 64 * DATA.numel() / 1e6 / call.milliseconds)
    assert call.read == pytest.approx(DATA.numel() / 1e6 / call.milliseconds)


def test_an_unknown_instruction_set_is_refused() -> None:
    with pytest.raises((ValueError, BackendUnavailable), match="sse9"):
        peaks("sse9")
