"""The kinds of local denoisers, by name."""

from collections.abc import Callable
from functools import partial

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


def find_kind(name: object) -> Callable[[tuple[int, int, int], Settings], Kind]:
    """The kind of that name; ValueError for none."""
    if not isinstance(name, str) or name not in KINDS:
        raise ValueError(f"kind: expected a known kind, found {name!r:.60}; allowed {list(KINDS)}")
    return KINDS[name]
