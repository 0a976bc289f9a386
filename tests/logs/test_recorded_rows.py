"""What the recorder's columns cannot hold is refused, and said by the argument's name."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.dataset as ds
import pytest

import mismatchscope as ms

LOGP = np.full((3, 2), -1.0)
BATCH = {"token_ids": np.ones((3, 2), np.int32), "behavior_logprobs": LOGP, "reference_logprobs": LOGP}


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"token_ids": None}, "token_ids is None. Next: give a value for each token"),
        ({"behavior_logprobs": None}, "behavior_logprobs is None."),
        ({"step": "a"}, "step has values that are no integers of 64 bits. Next: give integers of 64 bits."),
        ({"step": 1.5}, "step has values that are no integers of 64 bits."),
        ({"step": [1, 2, 2**63]}, "step has values that are no integers of 64 bits."),
        ({"step": True}, "step has values that are no integers of 64 bits."),
        ({"versions": 0.5}, "versions has values that are no integers of 64 bits."),
        ({"trainer_version": [1, 2, float("inf")]}, "trainer_version has values that are no integers of 64 bits."),
        ({"rewards": ["a", "b", "c"]}, "reward has values that are no numbers."),
        ({"truncated": [0, 1, 2]}, "truncated has values that are no booleans."),
    ],
)
def test_what_is_wrong_with_a_batch_is_said_in_a_sentence_of_ours(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, wrong: dict[str, Any], sentence: str
) -> None:
    with caplog.at_level(logging.WARNING, "mismatchscope"), ms.Recorder(tmp_path) as recorder:
        assert recorder.log(**BATCH | wrong) == {}
        recorder.log(**BATCH, step=2.0)
    (warning,) = caplog.records
    assert warning.getMessage().startswith(f"A batch was not recorded: {sentence}") and warning.exc_info is None
    assert recorder.errors == 1 and ds.dataset(tmp_path, format="parquet").to_table()["step"].to_pylist() == [2] * 3
