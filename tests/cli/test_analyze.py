"""`mismatchscope analyze` as a person types it: what it finds, gates, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command import run
from log_rows import log_batch, sampled_rows

import mismatchscope as ms
from mismatchscope.errors import EmptyComparisonError


def written(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.Table.from_batches([log_batch(**columns).rows]), path)
    return path


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two shards of a run of ten steps."""
    directory = tmp_path_factory.mktemp("run")
    for shard in range(2):
        rows = sampled_rows(120, prompts=12, seed=shard, longest=40)
        rows["step"] = [step + 5 * shard for step in rows["step"]]
        rows["prompt"] = [prompt + 12 * shard for prompt in rows["prompt"]]
        written(directory / f"shard-{shard}.parquet", **rows)
    return directory


@pytest.mark.slow
def test_a_log_becomes_a_report(log: Path, tmp_path: Path) -> None:
    done = run("-q", "analyze", log, "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "24 prompts, 240 responses" in done.stdout
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["log"]["format"] == "recorder"
    assert report["log"]["files"] == 2
    assert report["log"]["rows"] == report["counts"]["sequences"] == 240
    assert {"report.md", "report.html", "report.csv", "junit.xml"} <= {
        path.name for path in (tmp_path / "out").iterdir()
    }


def test_the_figures_are_those_of_the_definitions(log: Path) -> None:
    """Mean TV and KL, α₁'s lower bound and ESS, computed anew in float64."""
    report = ms.analyze(log)
    table = pq.read_table(log).to_pydict()
    mu, pi = (list(map(np.array, table[f"{name}_logprobs"])) for name in ("behavior", "reference"))
    d = np.concatenate(pi) - np.concatenate(mu)
    ratio_S = np.exp([float((b - a).sum()) for a, b in zip(mu, pi, strict=True)])
    assert report.token.tv is not None and report.token.kl is not None
    assert report.token.tv.mean == pytest.approx(np.maximum(1 - np.exp(d), 0).mean())
    assert report.token.kl.mean == pytest.approx((np.expm1(d) - d).mean())
    assert report.alpha1.observed_max == pytest.approx(
        np.abs(np.exp(np.concatenate(mu)) - np.exp(np.concatenate(pi))).max()
    )
    assert report.sequence.ess_fraction == pytest.approx(ratio_S.sum() ** 2 / (len(ratio_S) * (ratio_S**2).sum()))
    assert report.alpha1.mean.clusters == 24


@pytest.mark.slow
def test_gates_decide_the_exit_code(log: Path, tmp_path: Path) -> None:
    for gate, code in (("alpha1.mean.high > 0.5", 0), ("alpha1.mean.high > 1e-6", 1), ("token.tv.p99 > 0.5", 4)):
        done = run("-q", "analyze", log, "-o", tmp_path / str(code), "--fail-on", gate)
        assert done.returncode == code, done.stdout + done.stderr


@pytest.mark.slow
def test_one_process_and_two_say_the_same(log: Path, tmp_path: Path) -> None:
    reports = []
    for processes in (1, 2):
        out = tmp_path / str(processes)
        assert run("-q", "analyze", log, "-o", out, "--processes", processes).returncode == 0
        report = json.loads((out / "report.json").read_text())
        reports.append({key: value for key, value in report.items() if key != "provenance"})
    assert reports[0] == reports[1]


def test_three_policies(tmp_path: Path) -> None:
    rows = sampled_rows(60, prompts=20, seed=3)
    generator = np.random.default_rng(0)
    rows["target_logprobs"] = [
        np.minimum(row + generator.normal(0, 0.02, len(row)), 0) for row in rows["reference_logprobs"]
    ]
    report = ms.analyze(written(tmp_path / "run.parquet", **rows))
    assert report.alpha0 is not None and report.beta is not None and report.bounds is not None
    assert report.alpha0.mean.value is not None and report.alpha1.mean.value is not None
    assert report.alpha0.mean.value < report.alpha1.mean.value
    assert report.bounds.slack_mean == pytest.approx(
        report.alpha0.mean.value + report.alpha1.mean.value - (report.beta.mean.value or 0)
    )


def test_what_the_run_logged_is_held_against_the_log(log: Path, tmp_path: Path) -> None:
    table = pq.read_table(log).to_pydict()
    name = "policy/rollout_train_logprobs_abs_diff_mean"
    lines = []
    for step in range(10):
        rows = [row for row, at in enumerate(table["step"]) if at == step]
        gaps = [
            np.abs(np.array(table["behavior_logprobs"][row]) - np.array(table["reference_logprobs"][row]))
            for row in rows
        ]
        lines.append(json.dumps({"_step": step, name: float(np.concatenate(gaps).mean()), "vllm_kl": 0.5}))
    file = tmp_path / "metrics.jsonl"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    metrics = {metric.name: metric for metric in ms.analyze(log, compare_with=file).native_metrics}
    assert metrics[name].reproduces is True
    assert metrics["vllm_kl"].reproduces is False
    assert metrics["train/gen_kl_error"].reproduces is None


@pytest.mark.slow
@pytest.mark.parametrize(
    "columns, code, says",
    [
        ({"behavior_logprobs": [[-1.0]], "reference_logprobs": [[-1.0]], "mask": [[False]]}, 4, "1 tokens masked"),
        ({"behavior_logprobs": [[0.5]], "reference_logprobs": [[-1.0]]}, 4, "log-prob of μ is above 0: 1"),
        ({"behavior_logprobs": [[]], "reference_logprobs": [[]]}, 4, "no response tokens: 1"),
        ({"behavior_logprobs": [None], "reference_logprobs": [[-1.0]]}, 4, "no behavior_logprobs: 1"),
    ],
)
def test_an_empty_comparison_is_no_pass(tmp_path: Path, columns: dict[str, Any], code: int, says: str) -> None:
    file = written(tmp_path / "run.parquet", **columns)
    done = run("-q", "analyze", file, "-o", tmp_path / "out", "--fail-on", "alpha1.mean.high > 0.5")
    assert done.returncode == code
    assert says in done.stderr
    assert not (tmp_path / "out" / "report.json").exists()
    with pytest.raises(EmptyComparisonError):
        ms.analyze(file)


@pytest.mark.slow
def test_too_many_rejected_tokens_leave_it_open(tmp_path: Path) -> None:
    rows = sampled_rows(40, prompts=40, seed=4)
    rows["reference_logprobs"][0][:] = np.nan
    file = written(tmp_path / "run.parquet", **rows)
    assert run("-q", "analyze", file, "-o", tmp_path / "a").returncode == 4
    assert run("-q", "analyze", file, "-o", tmp_path / "b", "--max-rejected", "0.5").returncode == 0


@pytest.mark.slow
def test_what_is_no_log_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for path, says in (("empty", "There is no log in"), ("gone", "cannot be read")):
        done = run("-q", "analyze", tmp_path / path, "-o", tmp_path / "out")
        assert done.returncode == 2
        assert says in done.stderr and "Traceback" not in done.stderr


@pytest.mark.slow
def test_too_many_rejected_responses_leave_it_open(tmp_path: Path) -> None:
    rows = sampled_rows(40, prompts=40, seed=4)
    rows["reference_logprobs"][:4] = [None] * 4
    file = written(tmp_path / "run.parquet", **rows)
    assert ms.analyze(file).verdict == "inconclusive"
    done = run("-q", "analyze", file, "-o", tmp_path / "out", "--fail-on", "alpha1.mean.high > 0.9")
    assert done.returncode == 4
    assert ms.analyze(file, max_rejected=0.2).verdict == "none"


@pytest.mark.slow
def test_what_is_advised_is_an_option_of_the_verb(log: Path) -> None:
    taken = run("analyze", log, "-o", log)
    assert taken.returncode == 2
    assert "add --force" in taken.stderr and "--resume" not in taken.stderr
    wrong = run("analyze", log, "-o", log / "out", "--confidence", "2")
    assert wrong.returncode == 2 and "audit" not in wrong.stderr
