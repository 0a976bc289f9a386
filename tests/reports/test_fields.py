from __future__ import annotations

from mismatchscope.reports.fields import flatten


def test_flatten_joins_keys() -> None:
    assert flatten({"a": {"b": {"c": 1}}, "d": 2}) == {"a.b.c": 1, "d": 2}
