"""Tables of four kinds, in parts and in batches: Parquet, JSON lines, CSV, and the Arrow files that
`datasets.Dataset.save_to_disk` writes."""

from __future__ import annotations

import codecs
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ..input_files import check_regular, open_regular
from ..parquet_files import open_parquet
from . import jsonl, row_groups
from .json_lists import array_of
from .row_builder import list_array
from .source import Part

if TYPE_CHECKING:
    import pyarrow as pa

SUFFIXES = (".parquet", ".jsonl", ".csv", ".arrow")
_JSON_ROWS = 256
_CHUNK_BYTES = 2**20
_JSON_VALUES = 2**19
_CSV_BLOCK_BYTES = 16 * 2**20
_ARROW_MAGIC = b"ARROW1"
_BYTE_ORDER_MARK = codecs.BOM_UTF8
_HEADER_BYTES = 2**20
_KINDS = {list: list, np.ndarray: list, str: str, int: float, float: float, bool: bool, dict: dict}

Batch = tuple[np.ndarray, "pa.RecordBatch"]
"""Rows, and before them a number for each of them that no other row of the file has."""
_JsonRow = tuple[int, list[Any]]
"""The byte at which the row's line begins, and its value of each column."""


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
        return frozenset(_csv_names(head))
    return frozenset()


def _csv_names(head: bytes) -> list[str]:
    """The names in the first line of a CSV file."""
    line = b"".join(head.removeprefix(_BYTE_ORDER_MARK).splitlines()[:1])
    return [name.strip(' "') for name in line.decode(errors="replace").split(",")]


def parts_of(path: Path, columns: Collection[str], *, whole: bool = False) -> list[Part]:
    """A table in parts; `whole` where its rows must stay together. A CSV or an Arrow file is one part."""
    if path.suffix == ".parquet":
        parts = row_groups.parts_of(path, columns)
    elif path.suffix == ".jsonl":
        parts = jsonl.parts_of(path)
    else:
        parts = [Part(path)] if check_regular(path) else []
    return [Part(path, parts[0].start, parts[-1].stop)] if whole and parts else parts


def batches_of(
    part: Part,
    columns: Collection[str],
    rejected: Counter[str],
    remarks: list[str],
    *,
    texts: Collection[str] = (),
    in_order: bool = False,
) -> Iterator[Batch]:
    """Those of these columns that a part has, some rows at a time. `texts` are those that a CSV, which says of no
    value what it is, is to have as they are written. `in_order` where rows follow from one another.

    Lines that are no row go to `rejected`, and what a person should know of the part to `remarks`.
    """
    if part.path.suffix == ".jsonl":
        yield from _json_batches(part, columns, rejected, remarks, in_order)
    elif part.path.suffix == ".parquet":
        yield from _numbered(row_groups.batches_of(part, columns))
    else:
        with open_regular(part.path) as file:
            read = (
                _csv_batches(file, columns, rejected, texts)
                if part.path.suffix == ".csv"
                else _stream_batches(file, columns)
            )
            yield from _numbered(read)


def _numbered(batches: Iterator[tuple[int, pa.RecordBatch]]) -> Iterator[Batch]:
    for first, batch in batches:
        yield np.arange(first, first + batch.num_rows), batch


def _json_batches(
    part: Part, columns: Collection[str], rejected: Counter[str], remarks: list[str], in_order: bool
) -> Iterator[Batch]:
    wanted = list(columns)
    rows: list[_JsonRow] = []
    values = 0
    for place, row in jsonl.rows_of(part, rejected, remarks):
        rows.append((place, [_compact(row.get(name)) for name in wanted]))
        del row  # as `rows_of` does with it
        values += sum(value.size for value in rows[-1][1] if isinstance(value, np.ndarray))
        if len(rows) == _JSON_ROWS or values > _JSON_VALUES:
            batches = _batches_of_rows(rows, wanted, rejected, in_order)
            rows, values = [], 0  # before the batches are used, which needs memory too
            yield from batches
    if rows:
        yield from _batches_of_rows(rows, wanted, rejected, in_order)


def _batches_of_rows(
    rows: list[_JsonRow], columns: list[str], rejected: Counter[str], in_order: bool
) -> list[Batch]:
    usual, *others = _alike(rows)
    if in_order and others:
        rejected["values of another kind than in most rows"] += sum(map(len, others))
        others = []
    return [batch for alike in (usual, *others) for batch in _alike_batches(alike, columns, rejected)]


def _alike_batches(rows: list[_JsonRow], columns: list[str], rejected: Counter[str]) -> list[Batch]:
    """Rows as columns; where Arrow has no type for all of a column, the halves of the rows for which it has one."""
    import pyarrow as pa

    places, values = zip(*rows, strict=True)
    try:
        arrays = {
            name: _json_column(list(column))
            for name, column in zip(columns, zip(*values, strict=True), strict=True)
            if any(value is not None for value in column)
        }
    except (pa.ArrowException, OverflowError):
        if len(rows) == 1:
            rejected["values that no column can hold"] += 1
            return []
        middle = len(rows) // 2
        return [
            batch for half in (rows[:middle], rows[middle:]) for batch in _alike_batches(half, columns, rejected)
        ]
    return [(np.array(places), pa.RecordBatch.from_arrays(list(arrays.values()), names=list(arrays)))]


def _compact(value: Any) -> Any:
    """A list of numbers as an array, which takes a tenth of the memory; anything else as it is."""
    if not isinstance(value, list):
        return value
    try:
        return array_of(value)
    except ValueError:
        return value


def _json_column(values: list[Any]) -> pa.Array:
    import pyarrow as pa

    if all(value is None or isinstance(value, np.ndarray) for value in values):
        return list_array(values)
    values = [value.tolist() if isinstance(value, np.ndarray) else value for value in values]
    has_unsigned = any(type(value) is int and value >= 2**63 for value in values)
    return pa.array(values, pa.uint64() if has_unsigned else None)


def _alike(rows: list[_JsonRow]) -> list[list[_JsonRow]]:
    """Rows in which every column is of one kind, or null: numbers, texts, flags, lists. The most rows first."""
    for place in range(len(rows[0][1])):
        kinds = [_KINDS.get(type(values[place])) for _, values in rows]
        known = Counter(kind for kind in kinds if kind is not None).most_common()
        if len(known) > 1:
            usual = known[0][0]
            of_kind = [
                [row for row, kind in zip(rows, kinds, strict=True) if (kind or usual) == own] for own, _ in known
            ]
            return [alike for share in of_kind for alike in _alike(share)]
    return [rows]


def _csv_batches(
    file: Any, columns: Collection[str], rejected: Counter[str], texts: Collection[str]
) -> Iterator[tuple[int, pa.RecordBatch]]:
    import pyarrow as pa
    import pyarrow.csv as csv

    def skip(row: Any) -> Literal["skip"]:
        rejected["another number of columns"] += 1
        return "skip"

    _check_utf8(file)
    row_groups.present(_csv_names(file.readline(_HEADER_BYTES)), columns)
    file.seek(0)
    reader = csv.open_csv(
        file,
        read_options=csv.ReadOptions(block_size=_CSV_BLOCK_BYTES, use_threads=False),
        parse_options=csv.ParseOptions(newlines_in_values=True, invalid_row_handler=skip),
        convert_options=csv.ConvertOptions(
            include_columns=list(columns),
            include_missing_columns=True,
            column_types=dict.fromkeys(texts, pa.string()),
            strings_can_be_null=True,
        ),
    )
    row = 0
    for batch in reader:
        yield row, batch
        row += batch.num_rows


def _check_utf8(file: Any) -> None:
    """Raise `ValueError` for other bytes: pyarrow would print a traceback for a row that has them."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    while chunk := file.read(_CHUNK_BYTES):
        decoder.decode(chunk)
    decoder.decode(b"", final=True)
    file.seek(0)


def _stream_batches(file: Any, columns: Collection[str]) -> Iterator[tuple[int, pa.RecordBatch]]:
    reader = _open_stream(file)
    present = row_groups.present(reader.schema.names, columns)
    row = 0
    for batch in reader:
        # What is in the file is taken for memory as it is: offsets that lead out of it would end the process.
        batch.validate(full=True)
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
