"""How long a probe will take: from runs that were measured here, or not known; and what --time refuses."""

from __future__ import annotations

import functools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from in_process import run_here
from probe_runs import probed, settings

from mismatchscope.collection.collector import Collector
from mismatchscope.engines.spec import parse_spec
from mismatchscope.errors import ConfigError
from mismatchscope.probes import run_probe as running
from mismatchscope.probes.dry_run import plan_text
from mismatchscope.probes.plan import Setting
from mismatchscope.probes.run_times import Measured, RunTimes

ASKED: dict[str, Any] = {"behavior": "synthetic:tv=0.2,epsilon=0.1,variant=1", "reference": "synthetic"}
SLOW, QUICK = "vllm==0.32.0:dtype=float32", "vllm==0.32.0"


@pytest.fixture(autouse=True)
def _no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "Collector", functools.partial(Collector, run=run_here))


def test_a_run_takes_as_long_as_the_same_one_did_or_one_of_its_engine() -> None:
    times = RunTimes(Path("unused"))
    times.measured = [
        Measured(SLOW, "start", 30.0),
        Measured(SLOW, "start", 50.0),
        Measured(SLOW, "decode", 20.0, 1000),
        Measured(SLOW, "decode", 100.0, 1000, "1"),
    ]
    assert times.seconds(SLOW, "start") == (40.0, True)
    assert times.seconds(SLOW, "decode", 500) == (10.0, True)
    assert times.seconds(SLOW, "decode", 500, "1") == (50.0, True), "alone in a batch"
    assert times.seconds(QUICK, "start") == (40.0, False)
    assert times.seconds(QUICK, "prefill", 500) is None
    assert times.seconds("vllm==0.27.1", "start") is None, "another version is another engine"


def test_what_is_not_known_is_said() -> None:
    times = RunTimes(Path("unused"), [Measured(SLOW, "start", 30.0), Measured(SLOW, "prefill", 60.0, 1000)])
    slow, quick, other = (parse_spec(spec) for spec in (SLOW, QUICK, "sglang"))

    def said(*specs: Any) -> str:
        missing = {(str(spec), 0, False): [Setting("it", "behavior", spec, "prefill")] for spec in specs}
        return times.estimate(missing, slow, drawn=True, tokens=1000).sentence

    assert said(slow) == "it takes about 2 min, as runs took here before"
    assert (
        said(quick) == f"it takes about 2 min, as runs took here before; {QUICK} as others of the same engine did"
    )
    assert said(slow, other) == (
        "it takes at least about 2 min, as runs took here before; of sglang nothing has run here yet"
    )
    assert said(other) == "how long it takes is not known: of sglang nothing has run here yet"
    assert said() == "all that is to be run is there already"


def test_two_models_in_one_process_take_what_such_a_run_took_else_what_each_takes() -> None:
    times = RunTimes(Path("unused"), [Measured(SLOW, "start", 30.0), Measured(SLOW, "prefill", 60.0, 1000)])
    spec = parse_spec(SLOW)
    one, other = (
        Setting("one", "reference", spec, "prefill"),
        Setting("other", "reference", spec, "prefill", start=1),
    )
    estimate = times.estimate({}, spec, drawn=True, tokens=1000, beside=[(one, other)])
    assert (estimate.starts, estimate.runs, estimate.seconds) == (1, 1, 180.0)
    times.measured.append(Measured(SLOW, "beside", 50.0, 1000))
    estimate = times.estimate({}, spec, drawn=True, tokens=500, beside=[(one, other)])
    assert (estimate.starts, estimate.runs, estimate.seconds) == (1, 1, 25.0)


def test_lines_that_are_damaged_are_passed_over(tmp_path: Path) -> None:
    times = RunTimes.of(tmp_path)
    times.add(Measured(SLOW, "start", 3.0))
    with times.file.open("a") as file:
        file.write('{"spec": 1}\nnothing\n{"spec": "x", "work": "start", "sec')
    assert RunTimes.of(tmp_path).measured == [Measured(SLOW, "start", 3.0)]


@pytest.mark.slow
def test_a_plan_says_how_long_it_takes_once_something_has_run(tmp_path: Path) -> None:
    asked, store = settings(**ASKED), tmp_path / "runs"
    planned = running.plan_probe("attribute", asked)
    last = plan_text(planned, asked, store).splitlines()[-1]
    assert last == "how long it takes is not known: nothing has run here yet"
    probed("repeat", tmp_path / "repeat", store=store, **ASKED)
    works = {json.loads(line)["work"] for line in (store / "times.jsonl").read_text().splitlines()}
    assert works == {"start", "rollout", "decode", "prefill"}
    last = plan_text(planned, asked, store).splitlines()[-1]
    assert last.startswith("it takes about ") and "as others of the same engine did" in last
    probed("attribute", tmp_path / "attribute", store=store, **ASKED)
    assert plan_text(planned, asked, store).splitlines()[-1] == "all that is to be run is there already"


@pytest.mark.slow
def test_a_factorial_too_large_for_the_time_is_refused_with_what_to_leave_out(tmp_path: Path) -> None:
    store = tmp_path / "runs"
    probed("repeat", tmp_path / "repeat", store=store, **ASKED)
    times = RunTimes.of(store)
    times.file.write_text("")
    for measured in list(times.measured):  # as if all had taken a minute
        times.add(replace(measured, seconds=60.0))
    with pytest.raises(ConfigError) as refused:
        probed("attribute", tmp_path / "out", store=store, **ASKED, probe={"time": "12min"})
    # The run as given is there: 15 runs in 8 starts are left, and the reference's.
    assert "15 runs in 8 engine starts are left, which take about 23 min" in refused.value.message
    assert refused.value.hint == "leave out variant=0: the other 3 settings have 8 combinations; or --time 28min"
    assert not [path for path in (tmp_path / "out").rglob("start-*.log")]
    probed("attribute", tmp_path / "out", store=store, **ASKED, probe={"time": "1h"})


@pytest.mark.slow
def test_a_time_that_is_not_known_is_checked_when_an_engine_has_run(tmp_path: Path) -> None:
    slow = ASKED | {"behavior": "synthetic:slow=0.02,tv=0.2,epsilon=0.1"}
    with pytest.raises(
        ConfigError, match=r"7 runs in 4 engine starts are left|[0-9]+ runs in [0-9]+ engine starts are"
    ):
        probed("attribute", tmp_path / "out", **slow, probe={"time": "1s"})
    kept = list((tmp_path / "out" / "runs").glob("*/manifest.json"))
    assert kept, "what ran is kept"
