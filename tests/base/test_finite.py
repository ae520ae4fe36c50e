"""Documents that any reader of JSON takes."""

import json
import math
from types import MappingProxyType

from geodiff.base.finite import finite


def test_what_json_lacks_becomes_null_all_the_way_down() -> None:
    nested = {"a": [1.5, math.nan, (math.inf, {"b": -math.inf})], "c": MappingProxyType({"d": math.nan}), "e": range(2)}
    found = finite(nested)
    assert found == {"a": [1.5, None, [None, {"b": None}]], "c": {"d": None}, "e": [0, 1]}
    json.dumps(found, allow_nan=False)


def test_everything_else_stays() -> None:
    kept = {"text": "nan", "bytes": b"nan", "none": None, "whole": 3, "true": True}
    assert finite(kept) == kept
