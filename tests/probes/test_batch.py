"""The probe `batch`: what it tries, and what it says of chunks and the prefix cache. See also test_run_probe.py."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from probe_runs import codes, probed
from tiny_models import save_model

from mismatchscope.engines.spec import parse_spec
from mismatchscope.errors import ConfigError
from mismatchscope.measures.results import Alpha, Interval
from mismatchscope.probes import prefix_cache
from mismatchscope.probes.batch import PROBE
from mismatchscope.probes.plan import Plan, Question
from mismatchscope.reports.document import Report
from mismatchscope.reports.pair_fields import PairSummary, ProbeCell

WIDE = {
    "hidden_size": 512,
    "intermediate_size": 1024,
    "num_attention_heads": 8,
    "head_dim": 64,
    "initializer_range": 0.05,
    "max_position_embeddings": 256,
}


def planned(behavior: str, *values: str, sequences: int = 8) -> Plan:
    return PROBE.plan(Question(parse_spec(behavior), parse_spec("transformers"), sequences, values))


def tried(plan: Plan) -> dict[tuple[str, str], str]:
    """The SPEC of each setting, by its path and label."""
    return {(each.setting.path, each.setting.label): str(each.setting.spec) for each in plan.comparisons}


@pytest.mark.parametrize("gpus", [[], ["a GPU"]])
def test_prompts_in_chunks_and_from_the_cache_where_the_engine_has_them(
    monkeypatch: pytest.MonkeyPatch, gpus: list[str]
) -> None:
    monkeypatch.setattr(prefix_cache, "hardware", lambda: {"gpus": gpus})
    found = tried(planned("vllm"))
    assert found["decode", "chunks of 16"] == (
        "vllm:enable_chunked_prefill=true,max_num_batched_tokens=16,max_num_seqs=1"
    )
    assert found["decode", "prompt cached"] == ("vllm" if gpus else "vllm:block_size=32")
    assert tried(planned("sglang"))["decode", "chunks of 16"] == "sglang:chunked_prefill_size=16"
    assert tried(planned("sglang"))["decode", "prompt cached"] == "sglang"
    assert not {label for _, label in tried(planned("transformers"))} & {"chunks of 16", "prompt cached"}


def test_values_choose_sizes_chunks_and_the_cache() -> None:
    chosen = planned("vllm", "chunk=64,cache")
    assert list(tried(chosen)) == [("decode", "chunks of 64"), ("decode", "prompt cached")]
    cached = chosen.comparisons[1]
    assert (cached.against.label, cached.setting.composition.prefix_cache) == ("prompt not cached", "warm")
    decoded = {label for path, label in tried(planned("vllm", "4")) if path == "decode"}
    assert decoded == {"batch of 4", "other neighbours", "longest first"}


@pytest.mark.parametrize("values", ["chunk=0", "chunk=", "cached", "2,2", "1", "chunk=16,chunk=16"])
def test_values_that_are_none(values: str) -> None:
    with pytest.raises(ConfigError):
        planned("vllm", values)


def test_with_nothing_to_try_there_is_no_probe() -> None:
    for values, sequences in (("chunk=16", 8), ("cache", 8), ((), 1)):
        with pytest.raises(ConfigError, match="nothing to try"):
            planned("synthetic", *([values] if values else []), sequences=sequences)


def cell(setting: str, against: str, *, identical: bool) -> ProbeCell:
    alpha = Alpha(0.0 if identical else 0.1, Interval(0.0 if identical else 0.05, 0.0, 0.06))
    pair = PairSummary(alpha, identical=identical, same_tokens=64 if identical else 3, tokens=64)
    return ProbeCell(setting, against, "vllm", "decode", pair=pair)


@pytest.mark.parametrize(
    ("chunks", "cached", "expected"),
    [
        (False, True, ["depends_on_batch", "chunks", "same_from_cache"]),
        (True, False, ["depends_on_batch", "same_in_chunks", "cache"]),
        (True, True, ["batch_invariant"]),
    ],
)
def test_which_rule_matters_for_prompts(chunks: bool, cached: bool, expected: list[str]) -> None:
    cells = [
        cell("chunks of 16", "alone", identical=chunks),
        cell("prompt cached", "prompt not cached", identical=cached),
    ]
    assert [each.code for each in PROBE.conclude(cells, [])] == expected


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose matrix products are computed otherwise for one row than for several, and its prompts."""
    directory = save_model(tmp_path_factory.mktemp("models") / "wide", **WIDE)
    rng = np.random.default_rng(0)
    texts = ["".join(chr(32 + n) for n in rng.integers(1, 59, rng.integers(4, 24))) for _ in range(6)]
    lines = [json.dumps({"prompt": text}) for text in texts]
    (directory / "prompts.jsonl").write_text("\n".join(lines))
    return directory


@pytest.mark.slow
def test_decoding_in_bfloat16_depends_on_the_batch(wide: Path, tmp_path: Path) -> None:
    sides = {"behavior": "transformers:dtype=bfloat16", "reference": "transformers:dtype=bfloat16"}
    small = {"limit": 6, "sampling": {"samples": 1, "max_new_tokens": 12}}
    report, _ = probed(
        "batch", tmp_path / "run", values=("6",), model=str(wide), prompts=wide / "prompts.jsonl", **sides, **small
    )
    found = cells(report)
    assert not found["decode", "batch of 6"].identical
    assert codes(report)[0] == "depends_on_batch"


def cells(report: Report) -> dict[tuple[str, str], PairSummary]:
    assert report.probe is not None
    return {(cell.path, cell.setting): cell.pair for cell in report.probe.cells if cell.pair is not None}
