"""The kinds of local denoisers, by name."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from geodiff.local.kind import Kind, Settings
from geodiff.local.masks import Flex
from geodiff.local.patched import RULES, Patched
from geodiff.local.pca import PcaLocality

#: name -> kind, as `LocalDenoiser` takes it.
KINDS: dict[str, Callable[[tuple[int, int, int], Settings], Kind]] = {
    **{name: partial(Patched, name) for name in RULES},
    "pspc_flex": Flex,
    "pca": PcaLocality,
}

#: name -> the settings of `LocalDenoiser` that the kind takes; others would change nothing, and are refused.
TAKES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(RULES, ("patch",)),
    "pspc_flex": ("masks",),
    "pca": ("threshold", "temperature", "pool_average"),
}


def check_taken(kind: str, settings: Mapping[str, object]) -> dict[str, Any]:
    """Those of the settings that were given, not None; ValueError for one that the kind does not take."""
    given = {name: value for name, value in settings.items() if value is not None}
    for name in given:
        if name not in TAKES[kind]:
            of = [other for other, names in TAKES.items() if name in names]
            expected = f"kind {of[0]!r}" if len(of) == 1 else "a kind that takes it"
            raise ValueError(
                f"{name}: expected with {expected}, found {kind!r}, which takes {', '.join(TAKES[kind])}; "
                f"allowed None, or {', '.join(of) if len(of) > 1 else 'that kind'}"
            )
    return given


def find_kind(name: object) -> Callable[[tuple[int, int, int], Settings], Kind]:
    """The kind of that name; ValueError for none."""
    if not isinstance(name, str) or name not in KINDS:
        raise ValueError(f"kind: expected a known kind, found {name!r:.60}; allowed {list(KINDS)}")
    return KINDS[name]
