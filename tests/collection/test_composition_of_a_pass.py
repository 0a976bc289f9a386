"""What a pass asks of its batches is in the manifest of its trace and in its sequences."""

from __future__ import annotations

from pathlib import Path

import pytest

from mismatchscope.collection.collector import Collector
from mismatchscope.collection.passes import Pass
from mismatchscope.composition import BatchComposition
from mismatchscope.engines.spec import parse_spec
from mismatchscope.prompts.rows import Prompt
from mismatchscope.records import Evidence, Sampling
from mismatchscope.traces.reader import Trace

COMPOSITIONS = {
    "default": BatchComposition(),
    "pairs": BatchComposition(batch_size=2, shuffle_seed=4),
    "explicit": BatchComposition(batches=((3, 0, 1), (2,))),
}


@pytest.fixture
def traces(tmp_path: Path) -> dict[str, Trace]:
    """A rollout of four prompts in batches of 3, and scores of it in others, from one start of the engine."""
    events: list[str] = []
    rollout = Pass(tmp_path / "rollout", "behavior", Evidence("sampled"), "processed", Sampling(max_new_tokens=4))
    scores = [
        Pass(
            tmp_path / name,
            "reference",
            Evidence("sampled"),
            "processed",
            Sampling(max_new_tokens=4),
            source=rollout.trace,
            composition=composition,
        )
        for name, composition in COMPOSITIONS.items()
    ]
    Collector("synthetic", [Prompt(i, f"prompt {i}") for i in range(4)]).collect(
        parse_spec("synthetic:batch_size=3"),
        [rollout, *scores],
        log_path=tmp_path / "log",
        on_event=lambda event: events.append(event["event"]),
    )
    assert events.count("ready") == 1
    return {name: Trace.open(tmp_path / name) for name in ("rollout", *COMPOSITIONS)}


def test_the_manifest_says_what_a_pass_used(traces: dict[str, Trace]) -> None:
    effective = {name: trace.manifest.effective for name, trace in traces.items()}
    assert effective["rollout"]["batch_size"] == effective["default"]["batch_size"] == 3
    assert effective["pairs"] == effective["default"] | {"batch_size": 2}
    assert effective["explicit"] == effective["default"] | {"batch_size": 3, "order": "explicit"}
    assert {name: trace.manifest.seeds.get("shuffle") for name, trace in traces.items()} == {
        "rollout": None,
        "default": None,
        "pairs": 4,
        "explicit": None,
    }


def test_the_sequences_say_which_batch_they_were_in(traces: dict[str, Trace]) -> None:
    batches = {
        name: dict(zip(table["sequence_id"].to_pylist(), table["batch"].to_pylist(), strict=True))
        for name, trace in traces.items()
        for table in [trace.read_sequences()]
    }
    assert batches["rollout"] == batches["default"] == {0: 0, 1: 0, 2: 0, 3: 1}
    assert batches["explicit"] == {3: 0, 0: 0, 1: 0, 2: 1}
    assert sorted(batches["pairs"].values()) == [0, 0, 1, 1]
