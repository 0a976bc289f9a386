"""Remarks on prompts, from the records to the notes of the manifest."""

from __future__ import annotations

from pathlib import Path

from builders import manifest, records

from mismatchscope.records import Evidence, SequenceRecord, read_part, write_part
from mismatchscope.traces import Trace, create, finish, write_records
from mismatchscope.traces.notes import PromptRemarks
from mismatchscope.traces.store import raw_path_of

NOTES = ["2 of 3 prompts, the first of them prompt 1: twice.", "1 of 3 prompts, the first of them prompt 2: odd."]


def remarked(raw: bool = False) -> list[SequenceRecord]:
    """Six sequences of three prompts: one remark on the last two of them, another on the last."""
    made = records([3] * 6, level="sampled", raw=raw)
    for record in made:
        record.prompt_remarks = ["twice.", "odd."][: record.prompt_id]
    return made


def test_a_remark_is_noted_once_with_the_prompts_that_it_is_true_of() -> None:
    made = remarked()
    for order in (made, made[::-1]):
        remarks = PromptRemarks()
        assert list(remarks.watch(order)) == order
        assert remarks.notes == NOTES
    assert PromptRemarks().notes == []


def test_both_views_of_a_rollout_have_the_notes(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    write_records(path, manifest(evidence=Evidence("sampled")), remarked(raw=True))
    assert Trace.open(path).manifest.notes == NOTES
    assert Trace.open(raw_path_of(path)).manifest.notes == NOTES


def test_a_run_that_is_packed_again_notes_them_once(tmp_path: Path) -> None:
    path = create(tmp_path / "trace", manifest(evidence=Evidence("sampled")))
    for record in remarked(raw=True):
        assert read_part(write_part(path / "parts", record)).prompt_remarks == record.prompt_remarks
    kept = {file.name: file.read_bytes() for file in (path / "parts").iterdir()}
    begun = (path / "manifest.json").read_bytes()
    finish(path)
    # As after a kill between the raw view, which is complete, and the other.
    (path / "parts").mkdir()
    for name, content in kept.items():
        (path / "parts" / name).write_bytes(content)
    (path / "manifest.json").write_bytes(begun)
    finish(path)
    assert Trace.open(raw_path_of(path)).manifest.notes == Trace.open(path).manifest.notes == NOTES
