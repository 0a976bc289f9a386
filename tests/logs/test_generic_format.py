"""Tables of any form and a map of their columns: whatever the layout, the same responses are read."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from log_reading import read_all
from log_writers.samples import Sample, samples

from mismatchscope.errors import TraceError
from mismatchscope.logs import row_groups, tables
from mismatchscope.logs.reading import open_logs

SAMPLES = samples(7, turns=2)
SEQUENCES = """
lists = "sequence"
prompt_length = "p"
[columns]
token_ids = "tokens"
behavior_logprobs = "mu"
reference_logprobs = "pi"
mask = "mask"
reward = "reward"
step = "step"
worker = "worker"
"""


def sequence_rows(written: list[Sample] = SAMPLES) -> list[dict[str, Any]]:
    return [
        {
            "tokens": sample.tokens_T.tolist(),
            "mu": sample.mu_T.tolist(),
            "pi": sample.pi_T.tolist(),
            "mask": sample.generated_T.astype(int).tolist(),
            "p": sample.prompt,
            "reward": sample.reward,
            "step": index // 2,
            "worker": f"w{index % 3}",
            "other": {"a": [None]},
        }
        for index, sample in enumerate(written)
    ]


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=2)
    return path


def write_csv(path: Path, rows: list[dict[str, Any]]) -> Path:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(
            {key: json.dumps(value) if isinstance(value, list | dict) else value for key, value in row.items()}
            for row in rows
        )
    return path


def write_arrow(path: Path, rows: list[dict[str, Any]]) -> Path:
    table = pa.Table.from_pylist(rows)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
        stream.write_table(table, max_chunksize=3)
    return path


WRITERS: dict[str, Callable[[Path, list[dict[str, Any]]], Path]] = {
    "jsonl": write_jsonl,
    "parquet": write_parquet,
    "csv": write_csv,
    "arrow": write_arrow,
}


def read(path: Path, text: str, tmp_path: Path) -> tuple[list[dict[str, Any]], Counter[str]]:
    (tmp_path / "map.toml").write_text(text, encoding="utf-8")
    rows, rejected, _ = read_all(open_logs([path], column_map=tmp_path / "map.toml"))
    return rows.to_pylist(), rejected


def check(rows: list[dict[str, Any]], written: list[Sample] = SAMPLES) -> None:
    assert len({row["sequence_id"] for row in rows}) == len(rows)
    for row, sample in zip(rows, written, strict=True):
        own = sample.response
        assert row["token_ids"] == sample.tokens_T[own].tolist()
        assert row["mask"] == sample.generated_T[own].tolist()
        assert np.allclose(row["behavior_logprobs"], sample.mu_T[own], atol=1e-7)
        assert np.allclose(row["reference_logprobs"], sample.pi_T[own], atol=1e-7)


@pytest.mark.parametrize("kind", WRITERS)
def test_every_kind_of_table_gives_the_same_responses(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_groups, "PART_BYTES", 1)
    monkeypatch.setattr(tables, "_JSON_ROWS", 2)
    path = WRITERS[kind](tmp_path / f"log.{kind}", sequence_rows())
    rows, rejected = read(path, SEQUENCES, tmp_path)
    check(rows)
    assert not rejected
    assert [row["step"] for row in rows] == [index // 2 for index in range(7)]
    assert [row["worker"] for row in rows] == [f"w{index % 3}" for index in range(7)]
    for row, sample in zip(rows, SAMPLES, strict=True):
        assert row["prompt_token_ids"] == sample.tokens_T[: sample.prompt].tolist()
    assert rows[0]["prompt"] == rows[1]["prompt"] != rows[2]["prompt"]


def test_the_mask_says_where_responses_begin(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "log.jsonl", sequence_rows())
    check(read(path, SEQUENCES.replace('prompt_length = "p"', ""), tmp_path)[0])


def test_lists_of_the_response_padded(tmp_path: Path) -> None:
    rows = []
    for sample in SAMPLES:
        length = len(sample.tokens_T) - sample.prompt
        cut = {"tokens": sample.tokens_T, "mu": sample.mu_T, "pi": sample.pi_T, "mask": sample.generated_T}
        padded = {key: [*value[sample.response].tolist(), 0, 0, 0] for key, value in cut.items()}
        rows.append({**padded, "length": length, "prompt": f"a text of {sample.prompt}"})
    rows = [row | {"mask": [int(x) for x in row["mask"]]} for row in rows]
    text = SEQUENCES.replace('"sequence"', '"response"').replace(
        'prompt_length = "p"', 'response_length = "length"'
    )
    read_rows, rejected = read(write_jsonl(tmp_path / "log.jsonl", rows), text + 'prompt = "prompt"', tmp_path)
    check(read_rows)
    assert not rejected
    assert len({row["prompt"] for row in read_rows}) == len({sample.prompt for sample in SAMPLES})


@pytest.mark.parametrize("shift", [-2, -1, 1, 2])
@pytest.mark.parametrize("shortened", [True, False])
def test_shifted_lists_are_put_in_place(tmp_path: Path, shift: int, shortened: bool) -> None:
    """As written by who keeps [t] for token t + shift."""
    rows = sequence_rows()
    for row in rows:
        values = row["pi"]
        if shift > 0:
            row["pi"] = values[shift:] + ([] if shortened else [0.25] * shift)
        else:
            row["pi"] = [0.25] * -shift + values[:shift]
    text = SEQUENCES.replace('"pi"', f'{{ column = "pi", shift = {shift} }}')
    found, rejected = read(write_jsonl(tmp_path / "log.jsonl", rows), text, tmp_path)
    assert not rejected
    for row, sample in zip(found, SAMPLES, strict=True):
        expected = sample.pi_T[sample.response].copy()
        if shift < 0:
            expected[shift:] = np.nan
        assert np.allclose(row["reference_logprobs"], expected, equal_nan=True)
        assert row["token_ids"] == sample.tokens_T[sample.response].tolist()


@pytest.mark.parametrize(
    ("scale", "write"),
    [("log2", lambda logp: logp / np.log(2)), ("log10", lambda logp: logp / np.log(10)), ("probability", np.exp)],
    ids=["log2", "log10", "probability"],
)
def test_scales_become_natural_logarithms(tmp_path: Path, scale: str, write: Callable[[Any], Any]) -> None:
    rows = sequence_rows()
    for row in rows:
        row["mu"] = write(np.array(row["mu"])).tolist()
    text = SEQUENCES.replace('"mu"', f'{{ column = "mu", scale = "{scale}" }}')
    check(read(write_parquet(tmp_path / "log.parquet", rows), text, tmp_path)[0])


def test_no_probability_is_minus_infinity(tmp_path: Path) -> None:
    text = '[columns]\nbehavior_logprobs = {column = "mu", scale = "probability"}\nreference_logprobs = "pi"\n'
    path = write_jsonl(tmp_path / "log.jsonl", [{"mu": [0.0, 1.0, None, -1.0], "pi": [-1.0] * 4}])
    [row] = read(path, text, tmp_path)[0]
    assert row["behavior_logprobs"][:2] == [-np.inf, 0.0]
    assert np.isnan(row["behavior_logprobs"][2:]).all()


def test_a_mask_of_what_is_left_out(tmp_path: Path) -> None:
    rows = [row | {"mask": [not kept for kept in row["mask"]]} for row in sequence_rows()]
    text = SEQUENCES.replace('"mask"', '{ column = "mask", kept = 0 }').replace('prompt_length = "p"', "")
    check(read(write_parquet(tmp_path / "log.parquet", rows), text, tmp_path)[0])


@pytest.mark.parametrize("kind", WRITERS)
def test_a_row_may_be_a_token(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "_JSON_ROWS", 5)
    rows = [
        {
            "id": f"response {index}",
            "token": int(token),
            "mu": float(mu),
            "pi": float(pi),
            "keep": bool(kept),
            "step": index,
        }
        for index, sample in enumerate(SAMPLES)
        for token, mu, pi, kept in zip(
            *(
                values[sample.response]
                for values in (sample.tokens_T, sample.mu_T, sample.pi_T, sample.generated_T)
            ),
            strict=True,
        )
    ]
    text = """
rows = "tokens"
[columns]
sequence_id = "id"
token_ids = "token"
behavior_logprobs = "mu"
reference_logprobs = "pi"
mask = "keep"
step = "step"
"""
    found, rejected = read(WRITERS[kind](tmp_path / f"log.{kind}", rows), text, tmp_path)
    check(found)
    assert not rejected
    assert [row["step"] for row in found] == list(range(7))


REJECTED: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no pi": lambda row: row.update(pi=None),
    "pi has another length": lambda row: row["pi"].append(-1.0),
    "a length beyond the lists": lambda row: row.update(p=10**6),
    "no response tokens": lambda row: row.update(p=len(row["pi"])),
}


@pytest.mark.parametrize("reason", REJECTED)
@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_row_that_is_no_response_is_rejected(tmp_path: Path, kind: str, reason: str) -> None:
    rows = sequence_rows()
    REJECTED[reason](rows[3])
    found, rejected = read(WRITERS[kind](tmp_path / f"log.{kind}", rows), SEQUENCES, tmp_path)
    assert rejected == Counter({reason: 1})
    check(found, [*SAMPLES[:3], *SAMPLES[4:]])


def test_a_stray_kind_of_value_in_json_is_rejected(tmp_path: Path) -> None:
    rows = sequence_rows()
    rows[2]["pi"] = "none"
    rows[4]["step"] = "four"
    found, rejected = read(write_jsonl(tmp_path / "log.jsonl", rows), SEQUENCES, tmp_path)
    assert rejected.total() == 2
    assert len(found) == 5


def test_a_bad_row_of_a_csv_is_rejected(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "log.csv", sequence_rows())
    lines = path.read_text(encoding="utf-8").splitlines()
    lines[3] = lines[3].replace("[", "(", 1)
    lines[5] += ",one more"
    path.write_text("\n".join(lines), encoding="utf-8")
    found, rejected = read(path, SEQUENCES, tmp_path)
    assert rejected == Counter(
        {"its column tokens has texts that are no lists of numbers": 1, "another number of columns": 1}
    )
    check(found, [sample for index, sample in enumerate(SAMPLES) if index not in (2, 4)])


def test_columns_may_come_and_go_between_files(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    rows = sequence_rows()
    write_parquet(folder / "a.parquet", rows[:3])
    write_parquet(folder / "b.parquet", [{k: v for k, v in row.items() if k != "reward"} for row in rows[3:]])
    found, rejected = read(folder, SEQUENCES, tmp_path)
    assert [row["reward"] for row in found] == [sample.reward for sample in SAMPLES[:3]] + [None] * 4
    assert not rejected


def test_a_column_of_another_kind_is_named(tmp_path: Path) -> None:
    rows = [row | {"pi": 1.0} for row in sequence_rows()]
    with pytest.raises(TraceError, match="its column pi is double, not a list"):
        read(write_parquet(tmp_path / "log.parquet", rows), SEQUENCES, tmp_path)


def test_tables_with_our_names_need_no_map(tmp_path: Path) -> None:
    rows = [{"behavior_logprobs": [-1.0], "reference_logprobs": [-2.0], "step": 3}]
    for kind in ("jsonl", "arrow"):
        log = open_logs([WRITERS[kind](tmp_path / f"log.{kind}", rows)])
        assert log.format.name == "generic"
        assert read_all(log)[0].to_pylist()[0]["reference_logprobs"] == [-2.0]
