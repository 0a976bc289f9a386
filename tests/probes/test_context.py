"""The probe `context`: which sequences it makes, and what it says of differences that were planted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fake_server import POLICY, FakeServer
from probe_runs import codes
from synthetic_pair import make_pair

from mismatchscope.collection.output import output_directory
from mismatchscope.config import AuditSettings
from mismatchscope.demo import model_path
from mismatchscope.engines.common.checkpoint import Tokenizer
from mismatchscope.errors import ConfigError
from mismatchscope.measures.results import Alpha, Interval
from mismatchscope.probes import run_probe as running
from mismatchscope.probes.context import PROBE
from mismatchscope.probes.dry_run import plan_text
from mismatchscope.probes.other_contexts import Bos, LastTokens, Template, _is_within
from mismatchscope.records import Evidence, SequenceRecord
from mismatchscope.reports.document import Report
from mismatchscope.reports.pair_fields import CellRatio, PairSummary, ProbeCell
from mismatchscope.traces.reader import Trace
from mismatchscope.traces.schema import ModelFacts

SMALL: dict[str, Any] = {"limit": 6, "sampling": {"samples": 2, "max_new_tokens": 12}}


def probed(directory: Path, *values: str, **changes: Any) -> Report:
    asked = AuditSettings(**SMALL | changes)
    with output_directory(directory, resume=True):
        planned = running.plan_probe("context", asked, values)
        return running.run_probe(planned, asked, directory, command="", on_event=lambda event: None)


def cells(report: Report) -> dict[tuple[str, str], ProbeCell]:
    assert report.probe is not None
    return {(cell.setting, cell.against): cell for cell in report.probe.cells}


@pytest.fixture(scope="module", params=[Evidence("full"), Evidence("topk", k=4)], ids=["full", "topk"])
def drawn(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Trace, list[Any]]:
    pair = make_pair(tmp_path_factory.mktemp("drawn"), evidence=request.param)
    return pair.behavior, pair.records


@pytest.mark.parametrize("tokens", [1, 5])
def test_a_state_is_the_last_tokens_before_it_and_what_was_drawn_there(drawn: Any, tokens: int) -> None:
    trace, records = drawn
    made = list(LastTokens(tokens, states=50).records(trace))
    assert len(made) == 50 and [one.sequence_id for one in made] == sorted({one.sequence_id for one in made})
    states = [(record, position) for record in records for position in range(len(record.response_token_ids))]
    for one in made:
        record, position = states[one.sequence_id]
        before = [*record.prompt_token_ids.tolist(), *record.response_token_ids.tolist()[:position]]
        assert one.prompt_token_ids.tolist() == before[-tokens:]
        assert one.response_token_ids.tolist() == [record.response_token_ids[position]]
        assert one.observed.logprob_T.tolist() == [record.observed.logprob_T[position]]
        assert one.prompt_id == record.prompt_id, "the prompt it came from is the unit of every interval"
        if record.observed.topk_ids_TK is not None:
            assert one.observed.topk_ids_TK.tolist() == record.observed.topk_ids_TK[[position]].tolist()


def test_the_sample_of_states_is_the_same_for_every_context(drawn: Any) -> None:
    trace, records = drawn
    ids = [[one.sequence_id for one in LastTokens(tokens, states=20).records(trace)] for tokens in (1, 3, 1)]
    assert ids[0] == ids[1] == ids[2]
    everything = list(LastTokens(1, states=10**6).records(trace))
    assert len(everything) == sum(len(record.response_token_ids) for record in records)


def with_bos(trace: Trace, bos: Any) -> Trace:
    model = ModelFacts(config={"bos_token_id": bos})
    return Trace(trace.path, trace.manifest.model_copy(update={"model": model}))


def test_a_bos_token_more_or_less_changes_nothing_else(drawn: Any) -> None:
    trace, records = drawn
    first = with_bos(trace, 1)  # as every prompt of `make_pair` begins
    for variant, times in ((Bos(2), 2), (Bos(0), 0)):
        assert variant.missing(first) is None
        made: list[SequenceRecord] = list(variant.records(first))
        for one, record in zip(made, records, strict=True):
            assert one.prompt_token_ids.tolist() == [1] * times + record.prompt_token_ids.tolist()[1:]
            assert one.response_token_ids.tolist() == record.response_token_ids.tolist()
            assert one.observed.logprob_T.tolist() == record.observed.logprob_T.tolist()


@pytest.mark.parametrize(("bos", "why"), [(None, "nothing says"), (2, "not every prompt begins")])
def test_bos_is_not_tried_where_there_is_none(drawn: Any, bos: Any, why: str) -> None:
    assert why in str(Bos(2).missing(with_bos(drawn[0], bos)))


def test_a_template_is_added_where_there_is_none_and_dropped_where_there_is(drawn: Any) -> None:
    """The embedded model's template is `Question: …`, a line break, `Answer:`."""
    trace, records = drawn
    model = str(model_path("dense"))
    added, dropped = Template(model, added=True), Template(model, added=False)
    assert added.missing(trace) is None and "not every prompt" in str(dropped.missing(trace))
    made = list(added.records(trace))
    wrapped = [one.prompt_token_ids.tolist() for one in made]
    tokenizer = Tokenizer(model_path("dense"))
    for one, record in zip(wrapped, records, strict=True):
        prompt = record.prompt_token_ids.tolist()
        place = next(i for i in range(len(one)) if one[i : i + len(prompt)] == prompt)
        around = tokenizer.text(np.array(one[:place])), tokenizer.text(np.array(one[place + len(prompt) :]))
        assert around[0] == "Question:" and str(around[1]).endswith("Answer:")
        assert _is_within(one, one[:place], one[place + len(prompt) :])
    given = Drawn(made)
    assert dropped.missing(given) is None and "already" in str(added.missing(given))
    assert [one.prompt_token_ids.tolist() for one in dropped.records(given)] == [
        record.prompt_token_ids.tolist() for record in records
    ]


class Drawn:
    """As much of a trace as a context is made of."""

    def __init__(self, records: list[SequenceRecord]) -> None:
        self._records = records
        self.manifest = SimpleNamespace(model=ModelFacts())

    def records(self) -> Iterator[SequenceRecord]:
        return iter(self._records)


def test_a_model_without_a_template_is_said_to_have_none(drawn: Any, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    for added in (True, False):
        assert "no tokenizer" in str(Template(str(tmp_path), added).missing(drawn[0]))


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "busy"), [("vllm", False), ("sglang", False), ("vllm", True)])
def test_a_server_is_asked_before_and_after_a_reset_of_its_cache(kind: Any, busy: bool, tmp_path: Path) -> None:
    model, prompts = tmp_path / "model", tmp_path / "prompts.jsonl"
    model.mkdir()
    config = {"vocab_size": POLICY.vocabulary, "max_position_embeddings": 64, "eos_token_id": 0}
    (model / "config.json").write_text(json.dumps(config))
    prompts.write_text("".join(json.dumps({"prompt_token_ids": [3 + i, 9, 20]}) + "\n" for i in range(4)))
    with FakeServer(kind, busy=busy) as server:
        spec = f"{kind}@{server.url}"
        sides = {"behavior": spec, "reference": spec, "evidence": "topk:8"}
        report = probed(tmp_path / "run", "1", "cache", model=str(model), prompts=prompts, **sides)
    assert ("same_after_reset" in codes(report)) == (not busy)


@pytest.mark.slow
def test_a_difference_of_every_state_stays_and_its_interval_is_by_the_prompts_it_came_from(tmp_path: Path) -> None:
    report = probed(tmp_path / "run", behavior="synthetic:epsilon=0.2", reference="synthetic")
    found = cells(report)
    one, whole = found["one token", "behaviour"], found["whole", "behaviour"]
    assert codes(report)[0] == "stays"
    assert one.pair is not None and whole.pair is not None and one.ratio is not None
    assert one.pair.alpha.mean.clusters == whole.pair.alpha.mean.clusters == 6
    assert one.ratio.value.value == pytest.approx(one.pair.alpha.mean.value / whole.pair.alpha.mean.value)
    assert found["one token again", "one token"].pair.identical
    for setting in ("BOS doubled", "BOS missing"):
        assert found[setting, "behaviour"].status == "left_out"
    assert report.verdict == "none", "what there is nothing to try on is not missing"


@pytest.mark.slow
def test_the_behaviour_starts_twice_as_its_tokens_come_first(tmp_path: Path) -> None:
    asked = AuditSettings(**SMALL, behavior="synthetic:epsilon=0.2", reference="synthetic")
    text = plan_text(running.plan_probe("context", asked, ("1,4",)), asked)
    assert "3 engine starts, 9 runs" in text and "with tokens made of those" in text
    started: list[str] = []

    def on_event(event: dict[str, Any]) -> None:
        if event["event"] == "ready":
            started.append(event["side"])

    for _ in range(2):
        with output_directory(tmp_path / "run", resume=True):
            planned = running.plan_probe("context", asked, ("1,4",))
            running.run_probe(planned, asked, tmp_path / "run", command="", on_event=on_event)
    assert len(started) == 3, "and nothing is made twice"


@pytest.mark.parametrize("value", ["0", "two", "1,-4"])
def test_contexts_that_are_none_are_refused(value: str) -> None:
    with pytest.raises(ConfigError):
        running.plan_probe("context", AuditSettings(**SMALL), (value,))


def cell(setting: str, ratio: tuple[float, float, float] | None, times: float | None, **others: Any) -> ProbeCell:
    """A cell whose gap is so many times (value, low, high) that with whole contexts, and that of rounding."""
    alpha = Alpha(0.1, Interval(0.05, 0.04, 0.06))
    pair = PairSummary(alpha, identical=others.pop("identical", False), same_tokens=0, tokens=256)
    value = None if ratio is None else CellRatio("whole against behaviour", "tv", Interval(*ratio))
    return ProbeCell(
        setting,
        others.pop("against", "behaviour"),
        "transformers:dtype=bfloat16",
        "prefill",
        pair=pair,
        ratio=value,
        times_rounding=times,
    )


def concluded(*made: ProbeCell, whole: float | None = 10.0) -> list[str]:
    assert PROBE.conclude is not None
    return [each.code for each in PROBE.conclude([cell("whole", None, whole), *made], [])]


@pytest.mark.parametrize(
    ("ratio", "times", "whole", "code"),
    [
        ((0.01, 0.005, 0.02), 0.2, 10.0, "vanishes"),
        ((0.2, 0.1, 0.3), 1.0, 10.0, "vanishes"),  # to what rounding makes, which it was far beyond
        ((0.01, 0.005, 0.02), 4.0, 700.0, "stays_in_part"),  # as little as it is, rounding does not make it
        ((0.2, 0.1, 0.3), 1.0, 1.2, "stays_in_part"),  # rounding in both
        ((0.8, 0.7, 0.9), 1.0, 10.0, "unclear"),
        ((0.03, 0.01, 0.2), 0.1, 0.9, "unclear"),
        ((0.03, None, None), 0.1, 0.9, "unclear"),  # one prompt
        ((0.8, 0.7, 0.9), 17.0, 20.0, "stays"),
        ((0.7, 0.4, 0.8), 0.03, 0.04, "stays"),
        ((0.7, 0.4, 0.8), None, None, "stays"),
    ],
)
def test_what_is_said_of_one_token(ratio: Any, times: float | None, whole: float | None, code: str) -> None:
    assert concluded(cell("one token", ratio, times), whole=whole)[:2] == [code, "gap"]


def test_what_is_said_of_more_tokens_and_of_noise() -> None:
    gone = cell("one token", (0.0, 0.0, 0.0), None, identical=True)
    assert concluded(gone, cell("last 16 tokens", (0.5, 0.4, 0.6), 5.0)) == ["vanishes", "gap", "grows"]
    assert concluded(gone, cell("last 16 tokens", (0.9, 0.8, 1.1), 9.0)) == ["vanishes", "gap"]
    none = cell("last 16 tokens", (0.0, 0.0, 0.0), None, identical=True)
    assert concluded(gone, none) == ["vanishes", "gap", "further_back"]
    there = cell("one token", (0.8, 0.7, 0.9), 17.0)
    for share, said in ((0.9, ["stays", "noise", "gap"]), (0.2, ["stays", "gap"])):
        again = cell("one token again", (share, share - 0.1, share + 0.1), 9.0, against="one token")
        assert concluded(there, again) == said


def test_what_closes_the_gap_goes_before_what_it_looks_like() -> None:
    stays = cell("one token", (6.0, 5.0, 8.0), 900.0)
    closing = cell("BOS missing", (0.0, 0.0, 0.0), None, identical=True)
    assert concluded(stays, closing) == ["bos", "gap"]
    assert concluded(stays, cell("BOS missing", (2.0, 1.5, 2.4), 90.0)) == ["stays", "gap", "not_bos"]
    assert concluded(stays, replace(closing, setting="template dropped")) == ["template", "gap"]
    assert concluded(stays, cell("template added", (2.0, 1.5, 2.4), 90.0)) == ["stays", "gap", "not_template"]
