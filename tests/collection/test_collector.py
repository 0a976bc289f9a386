"""From an engine to traces: what a run goes on from, what it refuses, and what it writes."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from toy_runs import PROMPTS, collect, contents, passes
from trace_contents import files

from mismatchscope.composition import BatchComposition
from mismatchscope.errors import OutputExistsError, SpecError, TraceError, WorkerError
from mismatchscope.records import Evidence, Sampling, finished_parts
from mismatchscope.traces import Trace, read_manifest
from mismatchscope.traces import store as store_module

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("toy")]


def test_two_traces_in_one_start_of_the_engine(tmp_path: Path) -> None:
    kinds = collect(tmp_path)
    assert (kinds.count("ready"), kinds.count("sequence")) == (1, 16)
    first, again = (Trace.open(tmp_path / name) for name in ("first", "again"))
    assert (first.manifest.path, again.manifest.path) == ("rollout", "prefill")
    assert [request.sequence_id for request in again.requests()] == list(range(8))
    inputs = first.manifest.inputs
    assert (inputs.model, inputs.samples, inputs.version, inputs.needs_raw) == ("m", 2, None, False)
    assert again.manifest.inputs.source is not None and again.manifest.parent is None
    assert first.manifest.engine_version == "1.0" and first.manifest.settings["size"] == 4


def test_what_is_complete_or_only_not_packed_needs_no_engine(interrupted: Path) -> None:
    assert collect(interrupted, planned=passes(interrupted)[:1]) == [], "all of it was finished"
    assert Trace.open(interrupted / "first").manifest.engine_version == "1.0"
    assert collect(interrupted).count("sequence") == 1
    before = files(interrupted)
    assert collect(interrupted) == [], "all of it is complete"
    assert files(interrupted) == before


@pytest.mark.parametrize("killed_in", ["first", "again"])
def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path: Path, killed_in: str) -> None:
    spec = "synthetic:noise=0.01,batch_size=4,slow=0.02"
    for name in ("calm", "killed"):
        (tmp_path / name).mkdir()
    collect(tmp_path / "calm", spec)
    with pytest.raises(WorkerError, match="SIGKILL"):
        collect(tmp_path / "killed", spec, kill_in=killed_in)
    kept = len(finished_parts(tmp_path / "killed" / killed_in / "parts"))
    assert 3 <= kept < 8
    assert collect(tmp_path / "killed", spec).count("sequence") == (16 if killed_in == "first" else 8) - kept
    assert contents(tmp_path / "killed") == contents(tmp_path / "calm")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"spec": "toy:size=5"}, r"settings\.size is 4 there and 5 here"),
        ({"spec": "toy==1.0:size=4"}, r"inputs\.version is None there and '1\.0' here"),
        ({"spec": "synthetic"}, "engine is 'toy' there and 'synthetic' here"),
        ({"model": "other"}, r"inputs\.model is 'm' there and 'other' here"),
        ({"samples": 1}, r"inputs\.samples is 2 there and 1 here"),
        ({"prompts": PROMPTS[:3]}, "prompts_sha256"),
        ({"prompts": [*PROMPTS[:3], replace(PROMPTS[3], template_arguments={"a": 1})]}, "prompts_sha256"),
    ],
)
def test_another_run_does_not_go_on_from_here(interrupted: Path, change: dict[str, Any], named: str) -> None:
    before = files(interrupted)
    with pytest.raises(OutputExistsError, match=named):
        collect(interrupted, **change)
    assert files(interrupted) == before, "nothing was started, not even a log"


def test_a_complete_trace_is_that_of_one_run_too(tmp_path: Path) -> None:
    collect(tmp_path)
    before = files(tmp_path)
    with pytest.raises(OutputExistsError, match=r"settings\.size is 4 there and 5 here"):
        collect(tmp_path, "toy:size=5")
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"sampling": Sampling(max_new_tokens=3)}, r"sampling\.max_new_tokens"),
        ({"sampling": Sampling(max_new_tokens=2, seed=1)}, r"sampling\.seed"),
        ({"policy": "raw"}, "policy"),
        ({"needs_raw": True}, r"inputs\.needs_raw"),
        ({"evidence": Evidence("sampled", seed=4)}, r"evidence\.seed"),
        ({"composition": BatchComposition(shuffle_seed=4)}, r"seeds\.shuffle is 3 there and 4 here"),
        ({"composition": BatchComposition(batches=((0, 1), (2, 3)))}, r"inputs\.composition is None there"),
        ({"path": "decode"}, "path is 'prefill' there and 'decode' here"),
        ({"source": None}, "path"),
    ],
)
def test_another_pass_does_not_go_on_from_here(interrupted: Path, change: dict[str, Any], named: str) -> None:
    before = files(interrupted)
    rollout, again = passes(interrupted)
    with pytest.raises(OutputExistsError, match=rf"again holds another trace: .*{named}"):
        collect(interrupted, planned=[rollout, replace(again, **change)])
    assert files(interrupted) == before


def test_tokens_of_another_source_do_not_go_on_from_here(interrupted: Path) -> None:
    """The score asks for the same; the rollout that it takes its tokens from does not."""
    rollout, again = passes(interrupted)
    other = replace(rollout, trace=interrupted / "other", sampling=Sampling(max_new_tokens=2, top_k=1))
    with pytest.raises(OutputExistsError, match=r"again holds another trace: inputs\.source"):
        collect(interrupted, planned=[other, replace(again, source=other.trace)])


def test_a_score_goes_on_with_the_trace_that_it_began_with(tmp_path: Path) -> None:
    rollout, again = passes(tmp_path)
    collect(tmp_path, planned=[rollout])
    collect(tmp_path, planned=[again])
    parent = read_manifest(again.trace).parent
    assert parent is not None and parent == Trace.open(rollout.trace).sha256
    assert collect(tmp_path, planned=[again]) == []
    manifest = rollout.trace / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"notes": []', '"notes": ["remade"]'))
    with pytest.raises(OutputExistsError, match=f"parent is '{parent[:12]}' there"):
        collect(tmp_path, planned=[again])


def test_other_weights_do_not_go_on_from_here(interrupted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(interrupted)
    monkeypatch.setenv("TOY_WEIGHTS", "w1")
    with pytest.raises(OutputExistsError, match=r"weights_sha256 is 'w0' there and 'w1' here") as raised:
        collect(interrupted)
    assert raised.value.exit_code == 2 and raised.value.hint
    assert contents(interrupted) == before
    monkeypatch.delenv("TOY_WEIGHTS")
    collect(interrupted)
    assert Trace.open(interrupted / "first").manifest.model.weights_sha256 == "w0"


def test_packages_of_another_version_do_not_go_on_from_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collect(tmp_path)
    before = files(tmp_path)
    monkeypatch.setattr("mismatchscope.collection.content.__version__", "99.0")
    with pytest.raises(OutputExistsError, match=r"inputs\.packages\.mismatchscope is '.+' there and '99\.0' here"):
        collect(tmp_path)
    assert files(tmp_path) == before


def test_a_complete_trace_that_was_altered_is_refused_before_an_engine_starts(tmp_path: Path) -> None:
    collect(tmp_path)
    shutil.rmtree(tmp_path / "again")
    tokens = tmp_path / "first" / "tokens.parquet"
    tokens.write_bytes(tokens.read_bytes()[:-1] + b"?")
    before = files(tmp_path)
    with pytest.raises(TraceError, match=r"first/tokens\.parquet is truncated or altered"):
        collect(tmp_path)
    assert files(tmp_path) == before


def test_the_version_asked_for_is_told_apart_from_the_one_found(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"has toy 1\.0, not 2\.0"):
        collect(tmp_path, "toy==2.0:size=4")
    assert not (tmp_path / "first").exists(), "nothing was made, so nothing is taken"
    collect(tmp_path, "toy==1:size=4")  # 1 is 1.0
    assert read_manifest(tmp_path / "first").inputs.version == "1"


def test_a_manifest_is_written_when_the_engine_is_known_and_when_the_trace_is_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[tuple[str, bool, str | None]] = []
    real = store_module.write_atomic

    def write(path: Path, data: bytes) -> None:
        content = json.loads(data)
        written.append((path.parent.name, content["complete"], content["engine_version"]))
        real(path, data)

    monkeypatch.setattr(store_module, "write_atomic", write)
    collect(tmp_path)
    assert Counter(written) == {(name, whole, "1.0"): 1 for name in ("first", "again") for whole in (False, True)}
