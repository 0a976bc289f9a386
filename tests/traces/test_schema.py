"""The manifest: what an old one may lack, what a newer one may not smuggle in."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from builders import manifest, records, stored

from mismatchscope.errors import TraceError
from mismatchscope.records import Sampling
from mismatchscope.traces import Trace, read_manifest
from mismatchscope.traces.schema import RunInputs


def rewritten(path: Path, change: dict[str, Any], drop: tuple[str, ...] = ()) -> None:
    """Change keys of a manifest on disk."""
    file = path / "manifest.json"
    content = {key: value for key, value in json.loads(file.read_bytes()).items() if key not in drop}
    file.write_text(json.dumps(content | change))


def test_sampling_is_a_sampling(tmp_path: Path) -> None:
    sampling = Sampling(max_new_tokens=7, temperature=0.7, top_k=5, seed=3)
    trace = stored(tmp_path, records([3]), sampling=sampling)
    assert trace.manifest.sampling == sampling and trace.manifest.sampling.transforms
    on_disk = json.loads((trace.path / "manifest.json").read_bytes())["sampling"]
    assert on_disk == json.loads(json.dumps(asdict(sampling)))
    assert {key: on_disk[key] for key in ("max_new_tokens", "temperature", "top_k", "seed")} == {
        "max_new_tokens": 7,
        "temperature": 0.7,
        "top_k": 5,
        "seed": 3,
    }


def test_an_older_trace_still_opens(tmp_path: Path) -> None:
    """Before `inputs`, with a sampling that some tool wrote by hand, and without the column `max_abs_logit`."""
    trace = stored(tmp_path, records([3, 4]))
    rewritten(trace.path, {"sampling": {"temperature": 1, "top_p": 0.5, "top_k": 0}}, drop=("inputs",))
    table = pq.read_table(trace.path / "sequences.parquet")
    pq.write_table(table.drop_columns(["max_abs_logit"]), trace.path / "sequences.parquet")
    old = Trace.open(trace.path, verify=False)
    assert old.manifest.inputs == RunInputs()
    assert old.manifest.sampling is not None and old.manifest.sampling.truncates
    assert old.read_sequences().num_rows == 2
    rewritten(trace.path, {"sampling": None})
    assert read_manifest(trace.path).sampling is None


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"sampling": {"temperature": 1.0, "typical_p": 0.1}}, r"sampling\.typical_p: this key is not known"),
        ({"sampling": {"temperature": "warm"}}, r"sampling\.temperature"),
        ({"inputs": {"model": "m", "mood": "good"}}, r"inputs\.mood"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_what_this_version_does_not_know_is_refused_by_name(
    tmp_path: Path, change: dict[str, Any], named: str
) -> None:
    trace = stored(tmp_path, records([3]))
    rewritten(trace.path, change)
    with pytest.raises(TraceError, match=rf"manifest\.json cannot be used: {named}"):
        Trace.open(trace.path)


@pytest.mark.parametrize(
    ("change", "transforms", "truncates"),
    [
        ({}, False, False),
        ({"max_new_tokens": 3, "seed": 9}, False, False),
        ({"temperature": 0.7}, True, False),
        ({"temperature": 0.0}, True, False),
        ({"top_p": 0.9}, True, True),
        ({"top_k": 4}, True, True),
    ],
)
def test_what_a_sampler_does_to_the_distribution(change: dict[str, Any], transforms: bool, truncates: bool) -> None:
    sampling = manifest(sampling=Sampling(**change)).sampling
    assert sampling is not None
    assert (sampling.transforms, sampling.truncates) == (transforms, truncates)
