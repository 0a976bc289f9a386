"""Which comparisons are made side by side, what a probe then says, and what it says where that fails."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from in_process import run_here
from probe_runs import probed
from tiny_models import save_model

from mismatchscope.collection.collector import Collector
from mismatchscope.composition import BatchComposition
from mismatchscope.engines.spec import parse_spec
from mismatchscope.engines.transformers import room
from mismatchscope.probes import run_probe as running
from mismatchscope.probes.dry_run import plan_text
from mismatchscope.probes.plan import Comparison, Plan, Setting
from mismatchscope.probes.run_probe import plan_probe
from mismatchscope.probes.side_by_side import divided, fits_one_process
from mismatchscope.reports.document import Report
from mismatchscope.reports.pair_fields import ProbeCell
from mismatchscope.reports.probe_section import probe_sections

SMALL_BUDGET = "64KiB"
FLOAT32 = "transformers:dtype=float32"


def prefilled(spec: str, **others: Any) -> Setting:
    return Setting(spec, "reference", parse_spec(spec), **{"path": "prefill"} | others)


@pytest.mark.parametrize(
    ("spec", "others", "fits"),
    [
        ("transformers:dtype=bfloat16", {}, True),
        ("transformers:attn=eager,padding=packed", {}, True),
        ("transformers:nonsense=1", {}, False),
        ("transformers:batch_size=2", {}, False),
        ("transformers:deterministic=true", {}, False),
        ("transformers:threads=2", {}, False),
        ("transformers:matmul_precision=high", {}, False),
        ("transformers:fsdp=2", {}, False),
        ("transformers:python=/elsewhere/bin/python", {}, False),
        ("transformers==1.0", {}, False),
        ("vllm", {}, False),
        ("synthetic", {}, False),
        ("transformers", {"path": "decode"}, False),
        ("transformers", {"composition": BatchComposition(batch_size=4)}, False),
        ("transformers", {"again": 1}, False),
        ("transformers", {"start": 1}, False),
        ("transformers", {"drawn": True}, False),
        ("transformers", {"policy": "support"}, False),
    ],
)
def test_what_fits_one_process(spec: str, others: dict[str, Any], fits: bool) -> None:
    assert fits_one_process(Comparison(prefilled(FLOAT32), prefilled(spec, **others))) == fits


def test_a_setting_is_computed_alone_only_where_another_comparison_needs_it() -> None:
    third, half, other = prefilled(FLOAT32), prefilled("transformers"), prefilled("vllm")
    together, apart = Comparison(third, half), Comparison(half, other)
    parts = divided(Plan("", [together, apart]), side_by_side=True)
    assert (parts.side_by_side, parts.rest.settings) == ([together], [half, other])
    assert divided(Plan("", [together, apart]), side_by_side=False).rest.settings == [third, half, other]


def cells(report: Report) -> dict[tuple[str, str], ProbeCell]:
    assert report.probe is not None
    return {(cell.setting, cell.against.partition(" ")[0]): cell for cell in report.probe.cells}


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "Collector", functools.partial(Collector, run=run_here))


def run(
    directory: Path, words: int, name: str = "dtype", values: tuple[str, ...] = ("bfloat16",), **changes: Any
) -> tuple[Report, list[str]]:
    """A probe of one tiny model of so many words, too many for the budget; and the engines started."""
    directory.mkdir(exist_ok=True)
    model = save_model(directory / "model", vocab_size=words)
    rng = np.random.default_rng(0)
    lines = [json.dumps({"prompt_token_ids": rng.integers(1, 60, 5).tolist()}) for _ in range(3)]
    (directory / "prompts.jsonl").write_text("\n".join(lines))
    asked: dict[str, Any] = {
        "model": str(model),
        "prompts": directory / "prompts.jsonl",
        "behavior": "transformers",
        "reference": "transformers",
        "limit": None,
        "budget": SMALL_BUDGET,
        "sampling": {"max_new_tokens": 8},
    }
    return probed(name, directory / "run", values=values, **asked | changes)


@pytest.mark.slow
def test_whole_distributions_of_152k_words_are_compared_and_none_is_stored(
    tmp_path: Path, in_process: None
) -> None:
    sizes = {}
    for words in (2_048, 151_936):
        report, _ = run(tmp_path / str(words), words)
        found = cells(report)
        assert {cell.evidence for cell in found.values() if cell.side_by_side} == {"full"}
        assert found["bfloat16", "float32"].side_by_side and not found["bfloat16", "bfloat16,"].side_by_side
        runs = tmp_path / str(words) / "run" / "runs"
        sizes[words] = sum(file.stat().st_size for file in runs.rglob("*.parquet"))
        assert not list(runs.rglob("*.safetensors"))
        again, restarted = run(tmp_path / str(words), words)
        assert restarted == [], "all of it is there"
        assert again.model_dump(exclude={"provenance"}) == report.model_dump(exclude={"provenance"})
    assert sizes[151_936] < 1.1 * sizes[2_048], "what is stored does not grow with the vocabulary"


@pytest.mark.slow
def test_a_report_of_a_pair_side_by_side_says_so(tmp_path: Path, in_process: None) -> None:
    report, _ = run(tmp_path, 2_048, name="kernel", values=("attn=eager",))
    assert report.evidence == "full" and report.evidence_choice is not None
    assert report.evidence_choice.why.endswith("; compared side by side, not stored")
    assert report.evidence_choice.restore is None
    [section] = probe_sections(report.probe)
    assert "All cells are of whole distributions, compared side by side in one process and not stored." in [
        line.text for line in section.lines
    ]


@pytest.mark.slow
def test_side_by_side_is_what_a_larger_budget_finds(tmp_path: Path, in_process: None) -> None:
    beside, _ = run(tmp_path / "beside", 2_048)
    stored, _ = run(tmp_path / "stored", 2_048, budget="1GiB")
    for key, cell in cells(beside).items():
        other = cells(stored)[key]
        assert other.evidence == "full" and not other.side_by_side
        if cell.side_by_side:
            assert (cell.pair, cell.rounding_floor, cell.growth) == (other.pair, other.rounding_floor, other.growth)


@pytest.mark.slow
def test_without_room_for_two_models_less_is_stored_and_it_is_said(
    tmp_path: Path, in_process: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "_free_bytes", lambda device: 1000)
    report, _ = run(tmp_path, 2_048)
    cell = cells(report)["bfloat16", "float32"]
    assert (cell.status, cell.side_by_side, cell.evidence) == ("measured", False, "topk")
    assert str(cell.not_side_by_side).startswith("two models do not fit side by side")
    assert report.probe is not None and report.probe.complete


@pytest.mark.parametrize("evidence", ["sampled", "topk:8"])
def test_less_evidence_that_was_asked_for_is_what_is_seen(evidence: str) -> None:
    assert not planned(evidence=evidence, budget="1GiB").side_by_side


def test_the_plan_says_what_is_side_by_side() -> None:
    found = planned()
    text = plan_text(found, settings_of_plan())
    assert found.side_by_side
    assert (
        f"{len(found.divided(found.plan).side_by_side)} of {len(found.plan.comparisons)} comparisons side by side"
        in text
    )
    for path in ("decode", "prefill"):
        assert f"    side by side: {path}, as given, and {path}, attn=eager\n" in text
    assert "3 engine starts, 3 runs" in text, "one that draws the tokens, and one each"


def settings_of_plan(**changes: Any) -> Any:
    from mismatchscope.config import AuditSettings

    return AuditSettings(**{"budget": SMALL_BUDGET, "limit": 4, "behavior": "transformers"} | changes)


def planned(**changes: Any) -> running.PlannedProbe:
    return plan_probe("kernel", settings_of_plan(**changes), ("attn=eager",))
