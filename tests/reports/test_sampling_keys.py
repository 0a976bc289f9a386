"""On which sampling keys do two sides differ?"""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import Any

import pytest

from mismatchscope.records import Sampling
from mismatchscope.reports.sampling_keys import sampling_differences

OTHER: dict[str, Any] = {"logit_bias": {7: -1.0}}


@pytest.mark.parametrize("key", [field.name for field in fields(Sampling)])
def test_every_key_is_asked(key: str) -> None:
    ours = asdict(Sampling())
    theirs = ours | {key: OTHER.get(key, 0.25)}
    assert sampling_differences(ours, theirs) == {key: (ours[key], theirs[key])}
    assert sampling_differences(ours, dict(ours)) == {}


def test_what_is_unknown_contradicts_nothing() -> None:
    ours = asdict(Sampling(min_p=0.1))
    assert sampling_differences(ours, None) == sampling_differences(None, ours) == {}
    assert sampling_differences(ours, {"top_k": 0}) == {}
    assert sampling_differences({"logit_bias": None}, {"logit_bias": {}}) == {}
