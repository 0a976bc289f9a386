"""Tables of four kinds, in parts and in batches: Parquet, JSON lines, CSV, and the Arrow files that
`datasets.Dataset.save_to_disk` writes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..input_files import check_regular, open_regular
from ..parquet_files import open_parquet
from . import jsonl, row_groups
from .json_lists import floats_of
from .row_builder import list_array
from .source import Part

if TYPE_CHECKING:
    import pyarrow as pa

SUFFIXES = (".parquet", ".jsonl", ".csv", ".arrow")
_JSON_ROWS = 256
_CSV_BLOCK_BYTES = 16 * 2**20
_ARROW_MAGIC = b"ARROW1"
_KINDS = {list: "a list", str: "a text", int: "a number", float: "a number", bool: "a flag", dict: "an object"}

Batch = tuple[np.ndarray, "pa.RecordBatch"]
"""Rows, and before them a number for each of them that no other row of the file has."""


def column_names(path: Path, head: bytes) -> frozenset[str]:
    """The columns of a table; none for what is no table. Raises what pyarrow raises for a broken one."""
    if path.suffix == ".parquet":
        return frozenset(open_parquet(path).schema_arrow.names)
    if path.suffix == ".jsonl":
        return jsonl.keys_of(path, head)
    if path.suffix == ".arrow":
        with open_regular(path) as file:
            return frozenset(_open_stream(file).schema.names)
    if path.suffix == ".csv":
        line = head.removeprefix(b"\xef\xbb\xbf").splitlines()[:1]
        return frozenset(name.strip(' "') for name in b"".join(line).decode(errors="replace").split(","))
    return frozenset()


def parts_of(path: Path, columns: Collection[str], *, whole: bool = False) -> list[Part]:
    """A table in parts; `whole` where its rows must stay together. A CSV or an Arrow file is one part."""
    if path.suffix == ".parquet":
        parts = row_groups.parts_of(path, columns)
    elif path.suffix == ".jsonl":
        parts = jsonl.parts_of(path)
    else:
        parts = [Part(path)] if check_regular(path) else []
    return [Part(path, parts[0].start, parts[-1].stop)] if whole and parts else parts


def batches_of(part: Part, columns: Collection[str], rejected: Counter[str], remarks: list[str]) -> Iterator[Batch]:
    """Those of these columns that a part has, some rows at a time.

    Lines that are no row go to `rejected`, and what a person should know of the part to `remarks`.
    """
    if part.path.suffix == ".jsonl":
        yield from _json_batches(part, columns, rejected, remarks)
    elif part.path.suffix == ".parquet":
        yield from _numbered(row_groups.batches_of(part, columns))
    else:
        with open_regular(part.path) as file:
            read = _csv_batches(file, columns) if part.path.suffix == ".csv" else _stream_batches(file, columns)
            yield from _numbered(read)


def _numbered(batches: Iterator[tuple[int, pa.RecordBatch]]) -> Iterator[Batch]:
    for first, batch in batches:
        yield np.arange(first, first + batch.num_rows), batch


def _json_batches(
    part: Part, columns: Collection[str], rejected: Counter[str], remarks: list[str]
) -> Iterator[Batch]:
    import pyarrow as pa

    places: list[int] = []
    rows: list[dict[str, Any]] = []

    def batch() -> Batch:
        present = [name for name in columns if any(name in row for row in rows)]
        kept = _alike(rows, present, rejected)
        arrays = [_json_column([rows[index].get(name) for index in kept]) for name in present]
        return np.array(places)[kept], pa.RecordBatch.from_arrays(arrays, names=present)

    for place, row in jsonl.rows_of(part, rejected, remarks):
        places.append(place)
        rows.append(row)
        if len(rows) == _JSON_ROWS:
            yield batch()
            places, rows = [], []
    if rows:
        yield batch()


def _json_column(values: list[Any]) -> pa.Array:
    import pyarrow as pa

    if any(isinstance(value, list) for value in values):
        with suppress(ValueError):  # lists of lists, or of texts
            return list_array([None if value is None else floats_of(value, "", "d") for value in values])
    return pa.array(values)


def _alike(rows: list[dict[str, Any]], columns: list[str], rejected: Counter[str]) -> list[int]:
    """The rows in which every column is of the same kind as in most: null, numbers, texts, flags, lists."""
    kept = list(range(len(rows)))
    for name in columns:
        kinds = [_KINDS.get(type(rows[index].get(name)), "") for index in kept]
        known = Counter(kind for kind in kinds if kind)
        if len(known) > 1:
            usual = known.most_common(1)[0][0]
            strays = [index for index, kind in zip(kept, kinds, strict=True) if kind not in ("", usual)]
            rejected[f"{name} is not {usual}, as it is in most rows"] += len(strays)
            kept = [index for index in kept if index not in set(strays)]
    return kept


def _csv_batches(file: Any, columns: Collection[str]) -> Iterator[tuple[int, pa.RecordBatch]]:
    import pyarrow.csv as csv

    reader = csv.open_csv(
        file,
        read_options=csv.ReadOptions(block_size=_CSV_BLOCK_BYTES, use_threads=False),
        parse_options=csv.ParseOptions(newlines_in_values=True),
        convert_options=csv.ConvertOptions(include_columns=list(columns), include_missing_columns=True),
    )
    row = 0
    for batch in reader:
        yield row, batch
        row += batch.num_rows


def _stream_batches(file: Any, columns: Collection[str]) -> Iterator[tuple[int, pa.RecordBatch]]:
    reader = _open_stream(file)
    present = [name for name in columns if name in reader.schema.names]
    row = 0
    for batch in reader:
        yield row, batch.select(present)
        row += batch.num_rows


def _open_stream(file: Any) -> Any:
    """An Arrow file of either kind: `datasets` writes streams."""
    import pyarrow as pa

    head = file.read(len(_ARROW_MAGIC))
    file.seek(0)
    if head == _ARROW_MAGIC:
        opened = pa.ipc.open_file(file)
        return pa.RecordBatchReader.from_batches(
            opened.schema, (opened.get_batch(index) for index in range(opened.num_record_batches))
        )
    return pa.ipc.open_stream(file)
