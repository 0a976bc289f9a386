from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from builders import records, stored

from mismatchscope.errors import MissingDependencyError, UsageError

LENGTHS = (3, 0, 5)


def test_the_tables_of_a_trace(tmp_path: Path) -> None:
    batch = records(LENGTHS, level="topk", k=4)
    trace = stored(tmp_path, [replace(batch[0], policy_version=2**40), *batch[1:]])
    tokens, sequences = trace.tokens(), trace.sequences()
    assert list(tokens) == trace.token_columns
    assert list(sequences) == trace.sequence_columns
    assert tokens["sequence_id"].tolist() == [0] * 3 + [2] * 5
    assert tokens["position"].tolist() == [*range(3), *range(5)]
    assert tokens["logprob"].tolist() == np.concatenate([one.observed.logprob_T for one in batch]).tolist()
    assert (
        np.stack(tokens["topk_ids"]).tolist()
        == np.concatenate([one.observed.topk_ids_TK for one in batch]).tolist()
    )
    assert [ids.tolist() for ids in sequences["response_token_ids"]] == [
        one.response_token_ids.tolist() for one in batch
    ]


def test_integers_that_may_be_unknown_stay_integers(tmp_path: Path) -> None:
    batch = records(LENGTHS)
    frame = stored(tmp_path, [replace(batch[0], policy_version=2**40), *batch[1:]]).sequences()
    assert frame["policy_version"].tolist() == [2**40, pd.NA, pd.NA]
    assert str(frame["policy_version"].dtype) == "Int64"
    assert frame["batch"].isna().all()


def test_columns_are_chosen_by_name(tmp_path: Path) -> None:
    trace = stored(tmp_path, records(LENGTHS))
    assert list(trace.tokens(["logprob", "sequence_id"])) == ["logprob", "sequence_id"]
    assert list(trace.sequences(["prompt_id"])) == ["prompt_id"]
    with pytest.raises(UsageError, match="no column 'topk_ids'") as caught:
        trace.tokens(["logprob", "topk_ids"])
    assert "token_id" in (caught.value.hint or "")
    with pytest.raises(UsageError, match="no column 'prompt'"):
        trace.sequences(["prompt"])


def test_without_pandas_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trace = stored(tmp_path, records(LENGTHS))
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingDependencyError) as caught:
        trace.tokens()
    assert caught.value.hint == "pip install 'mismatchscope[frames]'"
