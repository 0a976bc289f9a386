"""A log of two workers, one of which has the weights of before an update: named from the log, and proved by scoring
its responses with the old checkpoint."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command import run
from log_rows import log_batch
from tiny_models import save_model, save_older

from mismatchscope.collection.single_trace import ScoreSettings, sample_trace, score_trace
from mismatchscope.config import AuditSettings
from mismatchscope.traces.reader import Trace

pytestmark = pytest.mark.slow

ENGINE = "transformers:dtype=float32"
PROMPTS = 24


@pytest.fixture(scope="module")
def present(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("present"))


@pytest.fixture(scope="module")
def old(present: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_older(present, tmp_path_factory.mktemp("old") / "checkpoint")


@pytest.fixture(scope="module")
def log(present: Path, old: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two workers sampled, scored by the trainer's present weights, in the recorder's form."""
    directory = tmp_path_factory.mktemp("log")
    rows: dict[str, list[Any]] = {}
    for number, (worker, model) in enumerate((("worker-0", present), ("worker-1", old))):
        sampling: Any = {"samples": 1, "max_new_tokens": 24, "seed": number}
        settings = AuditSettings(
            model=str(model),
            behavior=ENGINE,
            reference=ENGINE,
            limit=PROMPTS,
            evidence="sampled",
            sampling=sampling,
        )
        mu, pi = directory / f"mu-{number}", directory / f"pi-{number}"
        sample_trace(settings, mu, on_event=lambda event: None)
        score_trace(mu, pi, ScoreSettings(ENGINE, str(present)), on_event=lambda event: None)
        for sampled, scored in zip(Trace.open(mu).records(), Trace.open(pi).records(), strict=True):
            row = {
                "prompt": number * PROMPTS + sampled.prompt_id,
                "worker": worker,
                "prompt_token_ids": sampled.prompt_token_ids.tolist(),
                "token_ids": sampled.response_token_ids.tolist(),
                "behavior_logprobs": sampled.observed.logprob_T.tolist(),
                "reference_logprobs": scored.observed.logprob_T.tolist(),
            }
            for name, value in row.items():
                rows.setdefault(name, []).append(value)
    path = directory / "log.parquet"
    pq.write_table(pa.Table.from_batches([log_batch(**rows).rows]), path)
    return path


def test_a_stale_worker_is_named_and_its_old_checkpoint_proved(
    log: Path, present: Path, old: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = ["-q", "diagnose", log, "--confirm", "--model", present, "--reference", ENGINE, "-o", out]
    done = run(*command, "--candidate", f"step-10={old}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "One worker that differs from the others" in done.stdout
    assert "Proved: with the weights of step-10 the gap of these responses falls from " in done.stdout
    report = json.loads((out / "report.json").read_text())
    confirmation = report["confirmation"]
    assert confirmation["cause"] == "worker" and confirmation["proof"]["change"] == "step-10"
    assert confirmation["proof"]["after"]["high"] < 0.01 * confirmation["proof"]["before"]["low"]
    assert confirmation["proof"]["floor"] is not None
    assert "Proved: with the weights of step-10" in (out / "report.html").read_text(encoding="utf-8")
    # Without the right checkpoint nothing is proved, and that is said and is no success.
    again = run(*command, "--candidate", present, "--force")
    assert again.returncode == 4, again.stdout + again.stderr
    told = " ".join(again.stdout.split())
    assert re.search(r"Cannot tell: 1 other checkpoint and \d+ candidates tried, and none closes", told), told


def test_a_log_without_prompts_cannot_be_scored_again(log: Path, present: Path, tmp_path: Path) -> None:
    table = pq.read_table(log).drop_columns(["prompt_token_ids"])
    pq.write_table(table, tmp_path / "log.parquet")
    out = ["-o", tmp_path / "out"]
    done = run("-q", "diagnose", tmp_path / "log.parquet", "--confirm", "--model", present, *out)
    assert done.returncode == 2 and "no prompt token ids" in done.stderr, done.stderr
