"""How to distil: what is chosen once for a run."""

from dataclasses import dataclass

from geodiff.base.arguments import SEED_MAX, check_integer, check_number

METHODS = ("kd", "dfno", "pd", "cd", "ct")


@dataclass(frozen=True)
class Distillation:
    """Settings of a run. Raises TypeError or ValueError that names the field.

    method         "kd", "dfno" (of stored trajectories), "pd", "cd" (of a teacher that is asked), "ct" (of no teacher)
    steps          of Adam; PD deals them evenly to its halvings
    batch          noises or pictures per step
    width, patch   size of the student: see `UNetConfig`
    pairs          trajectories in the store, for kd and dfno
    start, end     steps of PD's first teacher and of its last student: powers of two apart
    learning_rate  the highest; it falls to 0 along half a cosine, in each of PD's stages anew
    ema            decay of the moving average of the weights, which is what is saved
    seed           of weights, noises and pictures
    """

    method: str = "kd"
    steps: int = 1600
    batch: int = 64
    width: int = 32
    patch: int = 4
    pairs: int = 4096
    start: int = 16
    end: int = 4
    learning_rate: float = 2e-3
    ema: float = 0.99
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"distill: found {self.method!r}; allowed {', '.join(METHODS)}")
        for name in ("steps", "batch", "pairs", "end"):
            check_integer(getattr(self, name), name, 1)
        check_integer(self.seed, "seed", 0, SEED_MAX)
        check_number(self.learning_rate, "learning_rate", 0.0, 1.0)
        check_number(self.ema, "ema", 0.0, 1.0, ends="[]")
        ratio, left = divmod(check_integer(self.start, "start", 2), self.end)
        if left or ratio < 2 or ratio & (ratio - 1):
            raise ValueError(
                f"start: expected end = {self.end} times 2, 4, 8, ..., found {self.start}; allowed so many halvings"
            )

    @property
    def stages(self) -> int:
        """How often PD halves; 1 for the others."""
        return (self.start // self.end).bit_length() - 1 if self.method == "pd" else 1
