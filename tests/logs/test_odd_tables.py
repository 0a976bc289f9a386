"""Tables that are nearly right: a bad row ends nothing, and what cannot be told is refused and not guessed."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from log_reading import read_all

from mismatchscope.errors import TraceError
from mismatchscope.logs import tables
from mismatchscope.logs.reading import Log, open_logs

ROW = {"behavior_logprobs": [-1.0, -2.0], "reference_logprobs": [-1.5, -2.0]}
COLUMNS = {name: [values] * 4 for name, values in ROW.items()}


def jsonl(tmp_path: Path, *rows: dict[str, Any]) -> Log:
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return open_logs([tmp_path / "log.jsonl"])


def parquet(tmp_path: Path, **columns: Any) -> Log:
    pq.write_table(pa.table(COLUMNS | columns), tmp_path / "log.parquet")
    return open_logs([tmp_path / "log.parquet"])


@pytest.mark.parametrize(
    "changes",
    [
        {"step": 2**63},
        {"step": 10**30},
        {"behavior_logprobs": [["a"]]},
        {"behavior_logprobs": [[-1.0], [-2.0]]},
        {"token_ids": ["a", 1]},
        {"token_ids": [2**40, 1]},
        {"reward": {"accuracy": 1.0}},
    ],
)
def test_a_bad_row_of_json_ends_nothing(tmp_path: Path, changes: dict[str, Any]) -> None:
    good = ROW | {"step": 1, "reward": 0.5, "token_ids": [1, 2]}
    rows, rejected, _ = read_all(jsonl(tmp_path, good, good, good | changes, good))
    assert (len(rows), rejected.total()) == (3, 1)


@pytest.mark.parametrize("rows_at_once", [2, 256])
def test_a_stray_kind_of_value_costs_its_own_row_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows_at_once: int
) -> None:
    """However few rows are put together, and whichever kind has the most of them."""
    monkeypatch.setattr(tables, "_JSON_ROWS", rows_at_once)
    good = ROW | {"step": 1}
    log = jsonl(tmp_path, good, good | {"step": [1]}, good | {"step": "one"}, good, good | {"step": {}}, good)
    rows, rejected, _ = read_all(log)
    assert (rows["step"].to_pylist(), rejected.total()) == ([1, 1, 1], 3)


def test_prompts_of_a_csv_may_be_numbers_of_any_size(tmp_path: Path) -> None:
    prompts = [2**63 + 1, 2**63 + 2, 2**63 + 1, 7]
    lines = [f'"[-1.0]","[-1.5]",{prompt}\n' for prompt in prompts]
    path = tmp_path / "log.csv"
    path.write_text("behavior_logprobs,reference_logprobs,prompt\n" + "".join(lines), encoding="utf-8")
    first, second, third, last = read_all(open_logs([path]))[0]["prompt"].to_pylist()
    assert first == third and len({first, second, last}) == 3


def test_ids_of_64_bits_without_a_sign_are_ids(tmp_path: Path) -> None:
    ids = [2**63 + 5, 7, 2**63 + 5, 2**64 - 1]
    as_json, rejected, _ = read_all(
        jsonl(tmp_path, *(ROW | {"prompt": value, "sequence_id": number} for number, value in enumerate(ids)))
    )
    assert not rejected
    column = pa.array(ids, pa.uint64())
    as_parquet = read_all(parquet(tmp_path, prompt=column, sequence_id=pa.array([2**63, 1, 2, 3], pa.uint64())))[0]
    for rows in (as_json, as_parquet):
        first, second, third, last = rows["prompt"].to_pylist()
        assert first == third and len({first, second, last}) == 3
        assert len(set(rows["sequence_id"].to_pylist())) == 4


def test_a_prompt_may_be_a_conversation(tmp_path: Path) -> None:
    talks = [[{"role": "user", "content": text}] for text in ("a", "b", "a", "c")]
    as_json = read_all(jsonl(tmp_path, *(ROW | {"prompt": talk} for talk in talks)))[0]
    as_parquet = read_all(parquet(tmp_path, prompt=talks))[0]
    for rows in (as_json, as_parquet):
        first, second, third, last = rows["prompt"].to_pylist()
        assert first == third and len({first, second, last}) == 3


@pytest.mark.parametrize(
    "columns",
    [
        {"sequence_id": ["a", "b", "c", "d"]},
        {"prompt": ["one", "two", "one", "two"]},
        {"step": ["1", "2", "3", "4"]},
        {"mask": [[1.0, 0.0]] * 4},
    ],
)
def test_columns_of_our_names_and_another_kind_are_any_tables(tmp_path: Path, columns: dict[str, Any]) -> None:
    log = parquet(tmp_path, **columns)
    assert log.format.name == "generic"
    rows, rejected, _ = read_all(log)
    assert (len(rows), rejected) == (4, Counter())
    assert len(set(rows["sequence_id"].to_pylist())) == 4
    if "mask" in columns:
        assert rows["mask"].to_pylist() == [[True, False]] * 4


def test_tables_with_our_names_are_one_log_whatever_kinds_some_have(tmp_path: Path) -> None:
    for name, step in (("a", [1, 2, 3, 4]), ("b", ["5", "6", "7", "8"])):
        pq.write_table(pa.table(COLUMNS | {"step": step}), tmp_path / f"{name}.parquet")
    log = open_logs([tmp_path])
    assert log.format.name == "generic"
    rows, rejected, _ = read_all(log)
    assert (rows["step"].to_pylist(), rejected) == (list(range(1, 9)), Counter())


@pytest.mark.parametrize("name", ["reference_logprobs", "step"])
def test_a_column_that_is_there_twice_is_refused(tmp_path: Path, name: str) -> None:
    table = pa.table(COLUMNS | {"step": [1, 2, 3, 4]})
    table = table.append_column(name, table[name])
    pq.write_table(table, tmp_path / "log.parquet")
    with pa.OSFile(str(tmp_path / "log.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
        stream.write_table(table)
    lists = {key: [json.dumps(values[0])] for key, values in COLUMNS.items()} | {"step": ["1"]}
    names, values = [*lists, name], [*lists.values(), lists[name]]
    lines = [names, [f'"{value[0]}"' for value in values]]
    (tmp_path / "log.csv").write_text("".join(",".join(line) + "\n" for line in lines), encoding="utf-8")
    for kind in ("parquet", "arrow", "csv"):
        with pytest.raises(TraceError, match=f"it has 2 columns {name}"):
            read_all(open_logs([tmp_path / f"log.{kind}"]))


@pytest.mark.parametrize("value", [0.5, 2, -1, None])
@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_mask_of_other_values_is_rejected(tmp_path: Path, kind: str, value: object) -> None:
    masks = [[1, 0], [1, value], [0, 1], [1, 1]]
    if kind == "jsonl":
        log = jsonl(tmp_path, *(ROW | {"mask": mask} for mask in masks))
    else:
        log = parquet(tmp_path, mask=pa.array(masks, pa.list_(pa.float64())))
    rows, rejected, _ = read_all(log)
    assert rejected == Counter({"mask has other values than 0 and 1": 1})
    assert rows["mask"].to_pylist() == [[True, False], [False, True], [True, True]]


def test_a_token_for_which_a_shifted_mask_has_no_place_is_not_kept(tmp_path: Path) -> None:
    columns = {"mu": "behavior_logprobs", "pi": "reference_logprobs"}
    lines = [f'{ours} = "{theirs}"' for theirs, ours in columns.items()]
    text = "\n".join(["[columns]", *lines, 'mask = { column = "m", shift = -1 }'])
    (tmp_path / "map.toml").write_text(text, encoding="utf-8")
    row = {"mu": [-1.0, -2.0, -3.0], "pi": [-1.0, -2.0, -3.0], "m": [0, 1, 1]}
    (tmp_path / "log.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    rows, rejected, _ = read_all(open_logs([tmp_path / "log.jsonl"], column_map=tmp_path / "map.toml"))
    assert (rows["mask"].to_pylist(), rejected) == ([[True, True, False]], Counter())


TOKENS = """
rows = "tokens"
[columns]
sequence_id = "id"
behavior_logprobs = "mu"
reference_logprobs = "pi"
"""


def token_table(tmp_path: Path, ids: list[str], steps: list[int], text: str) -> Log:
    columns = {"id": ids, "step": steps, "mu": [-1.0] * len(ids), "pi": [-1.5] * len(ids)}
    pq.write_table(pa.table(columns), tmp_path / "log.parquet", row_group_size=2)
    (tmp_path / "map.toml").write_text(text, encoding="utf-8")
    return open_logs([tmp_path / "log.parquet"], column_map=tmp_path / "map.toml")


def test_rows_of_a_response_that_lie_apart_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="rows of the response a are not together: sort it by id"):
        read_all(token_table(tmp_path, ["a", "a", "b", "b", "a"], [1] * 5, TOKENS))


def test_a_stray_value_leaves_tokens_in_their_order(tmp_path: Path) -> None:
    values = [-1.0, -2.0, "three", -4.0, -5.0]
    rows = [{"id": "a", "mu": value, "pi": -1.0} for value in values]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (tmp_path / "map.toml").write_text(TOKENS, encoding="utf-8")
    log = open_logs([tmp_path / "log.jsonl"], column_map=tmp_path / "map.toml")
    table, rejected, _ = read_all(log)
    assert table["behavior_logprobs"].to_pylist() == [[-1.0, -2.0, -4.0, -5.0]]
    assert rejected == Counter({"values of another kind than in most rows": 1})


def test_ids_may_begin_anew_with_each_step(tmp_path: Path) -> None:
    log = token_table(tmp_path, ["a", "b", "b", "a", "b"], [1, 1, 2, 2, 2], TOKENS)
    with pytest.raises(TraceError, match="not together"):
        read_all(log)
    log = token_table(tmp_path, ["a", "b", "b", "a", "b"], [1, 1, 2, 3, 3], TOKENS + 'step = "step"\n')
    rows = read_all(log)[0]
    assert [len(values) for values in rows["behavior_logprobs"].to_pylist()] == [1] * 5
    assert rows["step"].to_pylist() == [1, 1, 2, 3, 3]
