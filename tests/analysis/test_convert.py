"""Traces of a log give the figures that its analysis gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from log_rows import log_batch, sampled_rows
from log_writers import miles, slime
from log_writers.samples import samples

import mismatchscope as ms
from mismatchscope.analysis.convert import convert
from mismatchscope.errors import EmptyComparisonError, NotComparableError, OutputExistsError
from mismatchscope.logs.reading import open_logs
from mismatchscope.measures.prompt_hash import label_of


def check_same(analyzed: ms.Report, compared: ms.Report) -> None:
    """All that both measure, to the last bits that an order of addition moves."""
    for name in ("alpha1", "alpha0", "beta", "token", "sequence", "bounds"):
        check_values(name, *(report.model_dump()[name] for report in (analyzed, compared)))
    of_log = {(each.name, *each.parameters.items()): each for each in analyzed.corrections}
    for correction in compared.corrections:  # a log has more of them, and intervals
        found = of_log[correction.name, *correction.parameters.items()]
        for figure in (
            "kept_tokens",
            "kept_sequences",
            "clipped_mass",
            "mean_weight",
            "ess_fraction",
            "tv_retained",
        ):
            check_values(correction.name, getattr(found, figure), getattr(correction, figure))
    for name in ("prompts", "sequences", "tokens", "masked", "rejected", "partial_sequences"):
        assert getattr(analyzed.counts, name) == getattr(compared.counts, name), name


def check_values(path: str, a: Any, b: Any) -> None:
    if isinstance(a, dict) and isinstance(b, dict):
        for key in a:
            check_values(f"{path}.{key}", a[key], b[key])
    elif isinstance(a, list | tuple) and isinstance(b, list | tuple):
        assert len(a) == len(b), path
        for at, (one, other) in enumerate(zip(a, b, strict=True)):
            check_values(f"{path}[{at}]", one, other)
    else:
        assert a == (pytest.approx(b, rel=1e-9, abs=1e-12, nan_ok=True) if isinstance(b, float) else b), path


def recorded(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.Table.from_batches([log_batch(**columns).rows]), path)
    return path


def rows_with_prompts(seed: int) -> dict[str, Any]:
    rows = sampled_rows(60, prompts=9, seed=seed)
    prompts = [[7, prompt] for prompt in rows["prompt"]]
    return rows | {"prompt_token_ids": prompts, "prompt": label_of(prompts).tolist()}


def test_the_figures_of_a_recorders_log_are_those_of_its_traces(tmp_path: Path) -> None:
    """With masks, tokens that no policy can have, versions, and a π_θ."""
    for shard in range(2):
        generator = np.random.default_rng(shard)
        rows = rows_with_prompts(shard)
        rows["mask"] = [generator.random(len(tokens)) < 0.8 for tokens in rows["token_ids"]]
        for mask_T in rows["mask"]:
            mask_T[0] = True  # a response without a token that counts is in neither
        nan, positive = [index for index, mask_T in enumerate(rows["mask"]) if mask_T[1:].any()][:2]
        rows["target_logprobs"] = [logp_T - 0.01 for logp_T in rows["reference_logprobs"]]
        rows["reference_logprobs"][nan][0] = np.nan
        rows["behavior_logprobs"][positive][0] = 0.5
        rows["policy_version"] = list(range(60))
        rows["worker"] = [f"w{index % 3}" for index in range(60)]
        rows["truncated"] = [index % 2 == 0 for index in range(60)]
        recorded(tmp_path / f"log-{shard}.parquet", **rows)
    logs = sorted(tmp_path.glob("*.parquet"))
    traces = convert(open_logs(logs), tmp_path / "traces")
    assert list(traces) == ["behavior", "reference", "target"]
    report = ms.compare(traces["behavior"], traces["reference"], target=traces["target"], max_rejected=0.5)
    check_same(ms.analyze(logs, max_rejected=0.5, processes=1), report)
    frame = traces["behavior"].sequences()
    assert frame["worker"].iloc[4] == "w1"
    assert frame["finish_reason"].iloc[0] == "length"


def test_the_manifest_says_which_log_it_was(tmp_path: Path) -> None:
    log = recorded(tmp_path / "log.parquet", **rows_with_prompts(0))
    manifest = convert(open_logs([log]), tmp_path / "traces")["reference"].manifest
    facts = manifest.settings["log"]
    assert (manifest.role, manifest.engine, facts["format"]) == ("reference", "recorder", "recorder")
    assert list(facts["files"]) == [str(log)]
    assert facts["columns"]["reference_logprobs"] == "reference_logprobs"


def test_prompts_that_the_log_only_numbers_are_clusters_too(tmp_path: Path) -> None:
    log = recorded(tmp_path / "log.parquet", **sampled_rows(40, prompts=5))
    traces = convert(open_logs([log]), tmp_path / "traces")
    analyzed, compared = ms.analyze(log, processes=1), ms.compare(traces["behavior"], traces["reference"])
    assert analyzed.counts.prompts == compared.counts.prompts == 5
    assert analyzed.token.kl is not None and compared.token.kl is not None
    assert analyzed.token.kl.mean == pytest.approx(compared.token.kl.mean)


@pytest.mark.slow
@pytest.mark.parametrize("trainer", ["slime", "miles"])
def test_a_trainers_dumps_convert_to_what_they_are_measured_as(tmp_path: Path, trainer: str) -> None:
    run = tmp_path / "run"
    for step in range(3):
        written = samples(8, seed=step, turns=2)
        if trainer == "slime":
            slime.write_rollout(run / f"rollout_data/{step}.pt", step, written)
            slime.write_train(run / f"train_data/{step}.pt", step, written)
        else:
            miles.write_train(run, step, written)
            for rank in (0, 1):
                miles.write_losses(run, written[rank::2], rank=rank, first_call=2 * step)
    traces = convert(open_logs([run]), tmp_path / "traces")
    compared = ms.compare(traces["behavior"], traces["reference"], target=traces.get("target"))
    check_same(ms.analyze(run, processes=1), compared)
    assert any("may be of another policy than reference" in note for note in traces["reference"].manifest.notes)


def test_an_analysis_converts_where_it_is_asked_to(tmp_path: Path) -> None:
    """And refuses a directory that is taken, before it measures anything."""
    log = recorded(tmp_path / "log.parquet", **rows_with_prompts(0))
    ms.analyze(log, convert=tmp_path / "traces", processes=1)
    assert ms.open_trace(tmp_path / "traces" / "reference").manifest.counts.sequences == 60
    with pytest.raises(OutputExistsError):
        ms.analyze(log, convert=tmp_path / "traces", processes=1)


def test_what_cannot_be_converted_is_said(tmp_path: Path) -> None:
    rows = rows_with_prompts(0)
    del rows["token_ids"]
    log = recorded(tmp_path / "log.parquet", **rows)
    with pytest.raises(NotComparableError, match="have no token ids"):
        convert(open_logs([log]), tmp_path / "a")
    rows = rows_with_prompts(0)
    rows["reference_logprobs"] = [None] * 60
    recorded(log, **rows)
    with pytest.raises(EmptyComparisonError, match="nothing to convert"):
        convert(open_logs([log]), tmp_path / "b")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "file").touch()
    with pytest.raises(OutputExistsError):
        convert(open_logs([log]), tmp_path / "c")
