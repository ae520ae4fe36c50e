"""The levels that a solver has behind it, as far back as they are kept."""

from collections.abc import Callable, Sequence
from typing import overload

from geodiff.solvers.evaluation import Level

#: Levels before the present one that are always kept: as far as the steps of named solvers look back.
BACK = 3


class History(Sequence[Level]):
    """Levels 0..length-1, the latest last, made when asked for; of them the latest `kept` are still there."""

    def __init__(self, length: int, kept: int, level: Callable[[int], Level]) -> None:
        self._length, self._kept, self._level = length, kept, level

    def __len__(self) -> int:
        """How many levels there were, kept or not."""
        return self._length

    @overload
    def __getitem__(self, index: int) -> Level: ...
    @overload
    def __getitem__(self, index: slice) -> list[Level]: ...
    def __getitem__(self, index: int | slice) -> Level | list[Level]:
        """Raises IndexError for a level that never was, and for one that keep="end" has let go."""
        if isinstance(index, slice):
            return [self[k] for k in range(*index.indices(self._length))]
        k = range(self._length)[index]
        if k < self._length - self._kept:
            raise IndexError(
                f'history: expected one of the latest {self._kept} levels with keep="end", found level {k} of '
                f'{self._length}; allowed keep="all" for solvers that look further back'
            )
        return self._level(k)
