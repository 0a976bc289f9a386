"""Seeded damage to the tables and arrays of a trace that its checksums do not show: files are sealed again."""

from __future__ import annotations

import hashlib
import json
import math
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

_ODD_INTEGERS = (-1, 0, 1, 2**31 - 1, -(2**31), 2**15)
_ODD_FLOATS = (math.nan, math.inf, -math.inf, 0.0, 1.0, -1e300, 5e-324, -1e-17)
_ODD_TEXTS = ("", "\x00", "[]", "{}", "null", "\x1b[31m", "x" * 1000, "7")


def seal(trace: Path) -> None:
    """Make the manifest state the checksums of the files as they are now."""
    manifest = json.loads((trace / "manifest.json").read_text())
    for name in manifest["files"]:
        manifest["files"][name] = hashlib.sha256((trace / name).read_bytes()).hexdigest()
    (trace / "manifest.json").write_text(json.dumps(manifest, indent=1))


def damage_table(random_: random.Random, path: Path) -> str:
    """Change one column of a Parquet file, or its rows; returns what was done."""
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    column = random_.choice(table.column_names)
    match random_.randrange(6):
        case 0:
            table, done = _rows_changed(random_, table)
        case 1:
            table, done = table.drop_columns([column]), f"no {column}"
        case 2:
            table, done = _cast(random_, table, column)
        case _:
            table, done = _values_changed(random_, table, column)
    pq.write_table(table, path)
    return done


def _rows_changed(random_: random.Random, table: pa.Table) -> tuple[pa.Table, str]:
    import pyarrow as pa

    order = [*range(table.num_rows)]
    match random_.randrange(5):
        case 0:
            random_.shuffle(order)
        case 1:
            order.append(random_.choice(order))
        case 2:
            del order[random_.randrange(len(order))]
        case 3:
            order[random_.randrange(len(order))] = order[0]
        case 4:
            order = []
    return table.take(pa.array(order, pa.int64())), f"rows {order}"


def _cast(random_: random.Random, table: pa.Table, column: str) -> tuple[pa.Table, str]:
    import pyarrow as pa

    kind = random_.choice((pa.string(), pa.binary(), pa.float32(), pa.int8(), pa.list_(pa.float64()), pa.null()))
    at = table.column_names.index(column)
    try:
        changed = table[column].cast(kind)
    except (pa.ArrowException, ValueError):
        changed = pa.nulls(table.num_rows, kind)
    return table.set_column(at, column, changed), f"{column} as {kind}"


def _values_changed(random_: random.Random, table: pa.Table, column: str) -> tuple[pa.Table, str]:
    import pyarrow as pa

    at, kind = table.column_names.index(column), table.schema.field(column).type
    values = table[column].to_pylist()
    rows = random_.choice(([random_.randrange(len(values))], range(len(values)))) if values else []
    for row in rows:
        values[row] = _other(random_, values[row], kind)
    try:
        changed = pa.array(values, kind)
    except (pa.ArrowException, ValueError, OverflowError, TypeError):
        changed = pa.nulls(len(values), kind)
    return table.set_column(at, pa.field(column, kind), changed), f"{column} {[*rows]} others"


def _other(random_: random.Random, value: Any, kind: pa.DataType) -> Any:
    import pyarrow as pa

    if random_.random() < 0.1:
        return None
    if pa.types.is_list(kind):
        entries = [*(value or [])]
        match random_.randrange(4):
            case 0:
                return []
            case 1:
                return entries[:-1]
            case 2:
                return [*entries, *entries]
            case _ if entries:
                place = random_.randrange(len(entries))
                entries[place] = _other(random_, entries[place], kind.value_type)
        return entries
    if pa.types.is_boolean(kind):
        return not value
    if pa.types.is_integer(kind):
        return random_.choice((*_ODD_INTEGERS, (value or 0) + 1, (value or 0) - 1))
    if pa.types.is_floating(kind):
        return random_.choice((*_ODD_FLOATS, 3 * (value or 0.0) - 2, (value or 0.0) * 0.5))
    return random_.choice(_ODD_TEXTS)


def damage_distributions(random_: random.Random, path: Path) -> str:
    """Change one of the arrays of a safetensors file, in values, shape or type; returns what was done."""
    import numpy as np
    from safetensors.numpy import load_file, save_file

    arrays = load_file(path)
    name = random_.choice(sorted(arrays))
    array = arrays[name].copy()
    match random_.randrange(5):
        case 0:
            array = array[:-1]
        case 1:
            array = array.astype(random_.choice((np.float64, np.int32, np.float16)))
        case 2:
            array = array.reshape(-1, 1)
        case 3:
            flat = array.reshape(-1)
            place = random_.randrange(len(flat))
            odd = _ODD_FLOATS if array.dtype.kind == "f" else _ODD_INTEGERS
            with np.errstate(over="ignore"):
                flat[place] = random_.choice(odd)
        case 4:
            array = array[::-1].copy()
    if random_.random() < 0.1:
        del arrays[name]
    else:
        arrays[name] = array
    save_file(arrays, path)
    return f"{name} changed"
