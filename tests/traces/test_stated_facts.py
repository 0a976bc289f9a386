"""What a caller states of its policy is written as it is read again, or refused by its name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import mismatchscope as ms
from mismatchscope.errors import UsageError


def write(path: Path, **stated: Any) -> ms.Trace:
    return ms.write_trace(
        path, role="behavior", prompts=[[1]], responses=[[2, 3]], logprobs=[[-1.0, -2.0]], **stated
    )


def test_numbers_of_numpy_and_paths_are_taken(tmp_path: Path) -> None:
    effective = {"chunk": np.int64(3), "cache": {"at": Path("/data")}}
    written = write(
        tmp_path / "mu", temperature=np.float32(0.5), top_k=np.int64(3), model=Path("m"), effective=effective
    )
    manifest = ms.open_trace(written.path).manifest
    assert manifest.sampling is not None
    assert (manifest.temperature, manifest.sampling.temperature, manifest.sampling.top_k) == (0.5, 0.5, 3)
    assert (manifest.model.name, manifest.effective) == ("m", {"chunk": 3, "cache": {"at": "/data"}})


def test_an_unknown_reason_stays_unknown(tmp_path: Path) -> None:
    assert write(tmp_path / "mu", finish_reason=[None]).sequences()["finish_reason"].isna().all()


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({"model": "m\ud800"}, "model has a lone surrogate"),
        ({"worker": ["w\udfff"]}, "worker has a lone surrogate"),
        ({"vocabulary_size": "32k"}, "vocabulary_size is '32k'"),
        ({"vocabulary_size": 0}, "vocabulary_size is 0"),
        ({"engine": 3}, "engine is 3, not a text"),
        (
            {"effective": {"dtype": torch.bfloat16}},
            "effective has what JSON cannot hold: a value of the type dtype",
        ),
        ({"effective": [1]}, "effective is no mapping"),
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"temperature": "hot"}, "temperature is 'hot'"),
        ({"top_p": 3.0}, "top_p is 3.0"),
        ({"top_k": -1}, "top_k is -1"),
        ({"top_k": 2.5}, "top_k is 2.5"),
        ({"repetition_penalty": 0.0}, "repetition_penalty is 0.0"),
        ({"logit_bias": {5: float("-inf")}}, "logit_bias has a bias that is not finite"),
        ({"logit_bias": {"a": 1.0}}, "logit_bias is"),
    ],
)
def test_what_no_manifest_can_hold_is_refused_before_anything_is_written(
    tmp_path: Path, stated: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        write(tmp_path / "mu", **stated)
    assert not (tmp_path / "mu").exists()
