"""One audit as a whole: how often it reads and writes its files, and what a second one may go on from."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from trace_contents import files

from mismatchscope.collection.output import output_directory
from mismatchscope.config import AuditSettings
from mismatchscope.errors import OutputExistsError
from mismatchscope.probes.audit import run_audit
from mismatchscope.reports.document import Report
from mismatchscope.traces import store as store_module

pytestmark = pytest.mark.slow

# Every kind of trace that an audit makes: a raw view beside the sampled one, both repeats and a baseline.
WHOLE: dict[str, Any] = {
    "behavior": "synthetic:noise=0.003",
    "reference": "synthetic:tv=0.05",
    "baseline": "synthetic:tv=0.02",
    "policy": "raw",
    "limit": 4,
    "sampling": {"temperature": 0.7, "max_new_tokens": 8, "samples": 2},
}
TRACES = {"behavior", "behavior-raw", "behavior-repeat", "reference", "reference-repeat", "baseline"}


def run(directory: Path, **changes: Any) -> tuple[Report, list[str]]:
    """The report, and the sides whose engine was started."""
    started: list[str] = []

    def on_event(event: dict[str, Any]) -> None:
        if event["event"] == "ready":
            started.append(event["side"])

    with output_directory(directory, resume=True):
        return run_audit(AuditSettings(**WHOLE | changes), directory, command="", on_event=on_event), started


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Counter[Path], Counter[Path]]:
    """An audit that nobody disturbed: its directory, how often each file was hashed, and each manifest written."""
    hashed: Counter[Path] = Counter()
    written: Counter[Path] = Counter()
    real_digest, real_write = hashlib.file_digest, store_module.write_atomic

    def digest(handle: BinaryIO, name: str) -> Any:
        hashed[Path(handle.name)] += 1
        return real_digest(handle, name)

    def write(path: Path, data: bytes) -> None:
        written[path] += 1
        real_write(path, data)

    directory = tmp_path_factory.mktemp("audit") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hashlib, "file_digest", digest)
        patch.setattr(store_module, "write_atomic", write)
        _, started = run(directory)
    assert started == ["behavior", "reference", "baseline"]
    return directory, hashed, written


def test_no_file_of_a_trace_is_hashed_twice(counted: tuple[Path, Counter[Path], Counter[Path]]) -> None:
    directory, hashed, _ = counted
    stored = {path for path in directory.rglob("*") if path.suffix in (".parquet", ".safetensors")}
    assert len(stored) == 3 * len(TRACES) and stored <= hashed.keys()
    assert {path: count for path, count in hashed.items() if count > 1} == {}


def test_no_manifest_is_written_more_than_twice(counted: tuple[Path, Counter[Path], Counter[Path]]) -> None:
    directory, _, written = counted
    assert written == {directory / name / "manifest.json": 2 for name in TRACES}


def test_a_finished_audit_starts_no_engine_and_hashes_each_file_once(
    counted: tuple[Path, Counter[Path], Counter[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    directory, *_ = counted
    before, hashed = files(directory), Counter()
    real = hashlib.file_digest

    def digest(handle: BinaryIO, name: str) -> Any:
        hashed[Path(handle.name).relative_to(directory)] += 1
        return real(handle, name)

    monkeypatch.setattr(hashlib, "file_digest", digest)
    report, started = run(directory)
    assert started == [] and report.baseline is not None
    assert {path: count for path, count in hashed.items() if count > 1} == {}
    assert files(directory) == before


def test_what_does_not_decide_the_traces_may_change(counted: tuple[Path, Counter[Path], Counter[Path]]) -> None:
    directory, *_ = counted
    report, started = run(directory, confidence=0.5 + 0.4, baseline=None)
    assert started == [] and report.baseline is None
    assert report.alpha1.mean.confidence == 0.9
    assert json.loads((directory / "run.json").read_bytes())["confidence"] == 0.9, "what was asked for last"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"reference": "synthetic:tv=0.06"}, r"reference holds another trace: settings\.tv"),
        ({"baseline": "synthetic:tv=0.03"}, r"baseline holds another trace: settings\.tv"),
        ({"model": "demo:moe"}, r"behavior holds another trace: inputs\.model"),
        ({"limit": 3}, r"behavior holds another trace: prompts_sha256"),
        ({"evidence": "topk:4"}, r"behavior holds another trace: evidence\.k"),
        ({"policy": "processed"}, r"behavior holds another trace: inputs\.needs_raw"),
        ({"reference_temperature": 0.9}, r"reference holds another trace: sampling\.temperature"),
    ],
)
def test_another_audit_is_refused_before_an_engine_starts(
    counted: tuple[Path, Counter[Path], Counter[Path]], change: dict[str, Any], named: str
) -> None:
    directory, *_ = counted
    before = files(directory)
    with pytest.raises(OutputExistsError, match=named):
        run(directory, **change)
    assert files(directory) == before
