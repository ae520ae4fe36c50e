"""The loop over the noise levels, writing every state to where it is kept."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from geodiff.base.answers import what
from geodiff.solvers.evaluation import Evaluator, Level, Step
from geodiff.solvers.history import BACK, History

Callback = Callable[[int, float, Tensor, Tensor], object]


class Places(NamedTuple):
    """How many states and outputs of a trajectory are kept at a time."""

    states: int
    outputs: int

    @classmethod
    def of(cls, steps: int, keep: str) -> "Places":
        """All, or with keep="end" those that a step may look at: the present one, BACK before it, the next state."""
        back = steps if keep == "all" else min(steps, BACK + 1)
        return cls(back + 1, back)


@dataclass(frozen=True, eq=False)
class Walk:
    """Where a trajectory is kept: x_{s+1} = step(x_s), r_s = r(x_s; sigma_s), s = 0..S-1, from x_0 = states[0].

    levels   [S + 1]       sigma_s
    states   [P, B, *shape]  x_s in place s mod P; all but the first are written
    outputs  [Q, B, *shape]  r_s in place s mod Q; written
    analytical_first_step  r_0 = 0 instead of an evaluation
    """

    levels: tuple[float, ...]
    states: Tensor
    outputs: Tensor
    analytical_first_step: bool = False

    def state(self, step: int) -> Tensor:
        """x_s, while it is kept."""
        return self.states[step % len(self.states)]

    def output(self, step: int) -> Tensor:
        """r_s, while it is kept."""
        return self.outputs[step % len(self.outputs)]

    def _level(self, step: int) -> Level:
        return Level(self.levels[step], self.state(step), self.output(step))

    def run(
        self,
        step_of: Step,
        evaluate: Evaluator,
        *,
        callback: Callback | None = None,
        steps: Iterable[int] | None = None,
        first: int = 0,
        after: Callable[[int], object] | None = None,
    ) -> None:
        """Takes all steps from `first` on; `steps` is first..S-1, as an iterable that shows progress.

        first  where another walk has left off: states to x_first, and outputs before it, are known as far back as the
               solver looks
        after  called as after(s) when x_s is known

        Beyond what `evaluate` and `callback` do, nothing here waits for the device, looks at a value, or allocates, so
        that it can be recorded as one graph. Raises ValueError for a step that returns something else than the next x.
        """
        for step in range(first, len(self.levels) - 1) if steps is None else steps:
            at = self._level(step)
            sigma, x, denoised = at
            evaluate.place = self.state(step + 1)
            if self.analytical_first_step and step == 0:
                denoised.zero_()
            else:
                evaluate.combine(x, sigma, 1.0, (), denoised)
            if callback is not None:
                callback(step, sigma, x, denoised)
            kept = min(step, len(self.outputs) - 1)
            following = step_of(evaluate, at, self.levels[step + 1], History(step, kept, self._level))
            if following is not evaluate.place:
                evaluate.place.copy_(_checked(following, x, step_of))
            if after is not None:
                after(step + 1)


def _checked(following: object, x: Tensor, step_of: Step) -> Tensor:
    if isinstance(following, Tensor) and following.shape == x.shape:
        return following
    name = getattr(step_of, "__name__", type(step_of).__name__)
    raise ValueError(
        f"solver: expected a next state of shape {list(x.shape)} from {name}, found {what(following)}; "
        f"allowed the shape of x"
    )
