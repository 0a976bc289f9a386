"""`attribute` and `bisect` against settings of known size, on an engine whose every divergence is known."""

from __future__ import annotations

import functools
import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from in_process import run_here
from probe_runs import probed

from mismatchscope.collection.collector import Collector
from mismatchscope.comparison.contrast import contrast
from mismatchscope.comparison.pair import measure_pair
from mismatchscope.engines.spec import parse_spec
from mismatchscope.errors import ConfigError, SpecError
from mismatchscope.probes import run_probe as running
from mismatchscope.probes.candidates import candidates
from mismatchscope.probes.plan import Question
from mismatchscope.reports.document import Report

# The larger tv, the larger the gap: TV of a state is tv times a number in [0, 1), plus what epsilon adds.
LARGE, SMALL = "tv=0.2", "epsilon=0.02"
HARMLESS = "tail=1.5,cluster=0.5,variant=3,slow=0.0001"
REFERENCE = "synthetic"


@pytest.fixture(autouse=True)
def _no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "Collector", functools.partial(Collector, run=run_here))


def question(behavior: str, reference: str = REFERENCE, *values: str) -> Question:
    return Question(parse_spec(behavior), parse_spec(reference), 12, values)


def effects(report: Report) -> dict[str, Any]:
    assert report.probe is not None
    return {effect.change.partition("=")[0]: effect for effect in report.probe.effects}


def conclusion(report: Report) -> tuple[str, str]:
    assert report.probe is not None
    first = report.probe.conclusion[0]
    return first.code, first.sentence


def test_what_differs_is_what_was_given_and_the_path_and_the_likeliest_comes_first() -> None:
    found = candidates(question("transformers:dtype=float16,attn=eager,batch_size=4", "transformers:dtype=float32"))
    assert list(map(str, found)) == ["dtype=float32", "path=prefill", "attn=auto"]
    across = candidates(question("vllm:dtype=bfloat16,kv_cache_dtype=fp8", "transformers:dtype=float32"))
    assert list(map(str, across)) == ["kv_cache_dtype unset", "dtype=float32", "path=prefill"]


def test_values_choose_and_add() -> None:
    asked = question(f"synthetic:{LARGE},{SMALL}", REFERENCE, "tv", "noise=0.1")
    assert {str(each) for each in candidates(asked)} == {"tv=0.0", "noise=0.1"}


@pytest.mark.parametrize(
    ("values", "error"),
    [
        (["sharpness"], ConfigError),
        (["nonsense=1"], SpecError),
        (["tv=most"], SpecError),
        (["path=decode"], ConfigError),
        (["tv=0.1", "tv=0.0"], ConfigError),
        (["tv=0.0", "tv=0.0+noise=0"], ConfigError),
    ],
)
def test_values_that_are_no_change_are_refused(values: list[str], error: type[Exception]) -> None:
    with pytest.raises(error):
        candidates(question(f"synthetic:{LARGE}", REFERENCE, *values))


def test_several_options_are_one_change_and_can_have_a_name() -> None:
    asked = replace(
        question(f"synthetic:{LARGE},{SMALL}", REFERENCE, "tv=0.0+variant=0"),
        changes={"a small error": {"epsilon": "0", "noise": "0"}, "path": {"path": "prefill"}},
    )
    found = {str(each): each.applied(asked.behavior).options for each in candidates(asked)}
    assert found == {
        "tv=0.0+variant=0": {"tv": "0.0", "epsilon": "0.02", "variant": "0"},
        "a small error": {"tv": "0.2", "epsilon": "0", "noise": "0"},
        "path=prefill": {"tv": "0.2", "epsilon": "0.02"},
    }


def test_two_versions_of_one_engine_differ_in_their_version() -> None:
    found = candidates(question("vllm==0.27.1:dtype=float32", "vllm==0.32.0:dtype=float32"))
    assert [str(each) for each in found] == ["path=prefill", "version=0.32.0"]
    assert str(found[1].applied(parse_spec("vllm==0.27.1:dtype=float32"))) == "vllm==0.32.0:dtype=float32"


@pytest.mark.slow
def test_shares_of_planted_settings_come_in_their_order_and_add_up(tmp_path: Path) -> None:
    report, _ = probed(
        "attribute",
        tmp_path / "run",
        behavior=f"synthetic:{LARGE},{SMALL},variant=3",
        reference=REFERENCE,
        limit=12,
    )
    found = effects(report)
    assert next(iter(found)) == "tv" and found["tv"].share > 0.8 > found["epsilon"].share > 0
    whole = report.alpha1.mean.value
    assert sum(effect.tv.value for effect in found.values()) == pytest.approx(whole, rel=1e-9)
    assert sum(effect.share for effect in found.values()) == pytest.approx(1.0, rel=1e-9)
    assert found["path"].tv.value == 0.0, "the path changes nothing of this engine"
    assert conclusion(report)[0] == "shares" and "not told from 0: variant=0, path=prefill" in conclusion(report)[1]
    for name in ("tv", "epsilon"):
        assert found[name].tv.low <= found[name].tv.value <= found[name].tv.high


@pytest.mark.slow
def test_the_shares_are_those_of_all_orders(tmp_path: Path) -> None:
    """Against the definition: the mean, over all orders of the changes, of what each takes away where it stands."""
    report, _ = probed("attribute", tmp_path / "run", behavior=f"synthetic:{LARGE},{SMALL}", reference=REFERENCE)
    assert report.probe is not None
    names = ("tv", "epsilon", "path")
    gap = {frozenset(names): report.probe.cells[-1].pair.alpha.mean.value}
    for cell in report.probe.cells[:-1]:
        changed = frozenset(part.split("=")[0] for part in cell.setting.split(", ") if "=" in part)
        gap[changed] = cell.pair.alpha.mean.value
    for name in names:
        taken = [
            gap[frozenset(order[: order.index(name)])] - gap[frozenset(order[: order.index(name) + 1])]
            for order in itertools.permutations(names)
        ]
        assert effects(report)[name].tv.value == pytest.approx(float(np.mean(taken)), abs=1e-12)


@pytest.mark.slow
def test_a_gap_of_nothing_is_not_shared_out(tmp_path: Path) -> None:
    report, _ = probed("attribute", tmp_path / "run", behavior="synthetic:variant=2", reference=REFERENCE)
    assert conclusion(report)[0] == "no_gap" and report.probe is not None and not report.probe.effects


@pytest.mark.slow
def test_one_setting_is_found_among_harmless_ones(tmp_path: Path) -> None:
    report, _ = probed(
        "bisect", tmp_path / "run", behavior=f"synthetic:{HARMLESS},{LARGE}", reference=REFERENCE, limit=12
    )
    code, sentence = conclusion(report)
    assert code == "closed_by" and sentence.startswith("Set tv=0.0: mean TV") and sentence.endswith("→ 0 [0, 0].")


@pytest.mark.slow
def test_two_settings_that_make_it_together_are_both_named(tmp_path: Path) -> None:
    behavior = f"synthetic:{HARMLESS},{LARGE},epsilon=0.6"
    report, _ = probed("bisect", tmp_path / "run", behavior=behavior, reference=REFERENCE, limit=12)
    code, sentence = conclusion(report)
    named = sentence.partition(":")[0].removeprefix("Set ").split(", ")
    assert code == "closed_by" and set(named) == {"tv=0.0", "epsilon=0.0"}


@pytest.mark.slow
def test_a_gap_that_no_setting_makes_is_not_laid_on_one(tmp_path: Path) -> None:
    report, _ = probed(
        "bisect", tmp_path / "run", behavior="synthetic:variant=2", reference=f"synthetic:{LARGE},variant=2"
    )
    # The reference's own setting is what differs, and changing it closes the gap; leave it out and nothing does.
    assert conclusion(report)[0] == "closed_by"
    report, _ = probed(
        "bisect",
        tmp_path / "other",
        values=("slow=0.0001",),
        behavior="synthetic",
        reference=f"synthetic:{LARGE}",
    )
    code, sentence = conclusion(report)
    assert code == "not_among" and "slow=0.0001" in sentence


@pytest.mark.slow
def test_a_contrast_is_the_difference_by_prompt(tmp_path: Path) -> None:
    """Against the means themselves; a prompt's common part leaves no width."""
    report, _ = probed("attribute", tmp_path / "run", behavior=f"synthetic:{LARGE}", reference=REFERENCE, limit=8)
    assert report.probe is not None
    by_setting = {cell.setting: cell.pair for cell in report.probe.cells}
    as_given, without = by_setting["as given"], by_setting["tv=0.0"]
    effect = effects(report)["tv"].tv
    assert effect.value == pytest.approx(as_given.alpha.mean.value - without.alpha.mean.value, rel=1e-12)
    assert effect.clusters == 8 and effect.low < effect.value < effect.high


@pytest.mark.slow
def test_a_contrast_of_a_pair_with_itself_is_nothing(tmp_path: Path) -> None:
    from mismatchscope.comparison.context import Context
    from mismatchscope.traces.reader import Trace

    probed("attribute", tmp_path / "run", behavior=f"synthetic:{LARGE}", reference=REFERENCE)
    runs = [path for path in (tmp_path / "run" / "runs").iterdir() if (path / "manifest.json").exists()]
    traces = [Trace.open(path) for path in sorted(runs)]
    source = next(trace for trace in traces if trace.manifest.path == "rollout")
    context = Context.of(source, source, None)
    pair = measure_pair(source, next(trace for trace in traces if trace is not source), context)
    nothing = contrast([pair, pair], [1.0, -1.0])
    assert nothing.value == 0.0 and nothing.low is None


@pytest.mark.slow
def test_one_prompt_tells_nothing(tmp_path: Path) -> None:
    report, _ = probed("bisect", tmp_path / "run", behavior=f"synthetic:{LARGE}", reference=REFERENCE, limit=1)
    assert conclusion(report)[0] == "cannot_tell"


@pytest.mark.slow
def test_too_few_prompts_lay_a_gap_on_no_setting_and_clear_none(tmp_path: Path) -> None:
    """Of two prompts that differ, no interval tells how much a change closes."""
    behavior = f"synthetic:{LARGE},cluster=1"
    report, _ = probed("bisect", tmp_path / "run", behavior=behavior, reference=REFERENCE, limit=2)
    assert conclusion(report)[0] == "cannot_tell"


@pytest.mark.slow
def test_one_prompt_tells_no_share_from_nothing(tmp_path: Path) -> None:
    report, _ = probed("attribute", tmp_path / "run", behavior=f"synthetic:{LARGE}", reference=REFERENCE, limit=1)
    assert conclusion(report)[1].endswith("rest 0 %; not told from 0: tv=0.0, path=prefill.")
