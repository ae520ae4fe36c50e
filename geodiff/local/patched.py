"""Kinds whose posteriors are windows of k x k pixels: LS, ELS and PSPC-Square."""

from collections.abc import Callable, Hashable
from typing import NamedTuple

from geodiff.base.arguments import check_integer
from geodiff.local.kind import Kind, Settings, Source
from geodiff.reference.forms import Crops, Displaced, Form, Windows


class Rule(NamedTuple):
    """form of k; whether k must be odd, to have a centre; whether windows must be no larger than the image."""

    form: Callable[[int], Form]
    odd: bool = True
    fits: bool = True


#: Where windows go round, a larger one would count a pixel twice; one that must fit into the image has to.
RULES = {
    "ls": Rule(Windows, fits=False),
    "ls_circular": Rule(lambda k: Windows(k, circular=True)),
    "els_torus": Rule(lambda k: Displaced(k, "torus")),
    "els_valid": Rule(lambda k: Displaced(k, "valid")),
    "els_broken": Rule(lambda k: Displaced(k, "broken"), fits=False),
    "pspc_square": Rule(Crops, odd=False),
}


class Patched(Kind):
    """Windows of `settings.patch`: k, or a callable sigma -> k; name is one of RULES."""

    def __init__(self, name: str, shape: tuple[int, int, int], settings: Settings) -> None:
        self._name, self._size, self._patch = name, shape[1:], settings.patch
        if not callable(self._patch):
            self._checked(self._patch)

    def key(self, sigma: float) -> Hashable:
        return self._checked(self._patch(sigma) if callable(self._patch) else self._patch)

    def form(self, key: Hashable, source: Source) -> Form:
        return RULES[self._name].form(self._checked(key))

    def _checked(self, k: object) -> int:
        k = check_integer(k, "patch", 1, min(self._size) if RULES[self._name].fits else None)
        if RULES[self._name].odd and k % 2 == 0:
            raise ValueError(
                f"patch: expected an odd number of pixels, with one in the middle, found {k}; allowed odd k"
            )
        return k
