"""Damaged logs: rows are lost and counted, or one error names the file; nothing else is raised, nothing ends the
process."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from log_reading import read_all
from log_writers import nemo_rl, prime_rl
from log_writers.samples import samples
from mutations import BYTES, TEXT, json_lines_damaged

from mismatchscope.errors import MismatchScopeError
from mismatchscope.logs.reading import open_logs

pytestmark = pytest.mark.slow

ROUNDS = 15
_VALUE = re.compile(rb"-?\d+\.?\d*|true|false|null")
_OTHERS = (
    *(b"NaN", b"-Infinity", b"1e999", b"9" * 25, b"-9223372036854775809", b"18446744073709551615", b"null"),
    *(b'"x"', b"[]", b"{}", b"true", b"[[1]]", b"\xff", b"1.5"),
)


def with_another_value(random_: random.Random, data: bytes) -> bytes:
    """A number or a flag of a text file in place of another kind of value."""
    found = list(_VALUE.finditer(data))
    if not found:
        return data
    one = random_.choice(found)
    return data[: one.start()] + random_.choice(_OTHERS) + data[one.end() :]


def table() -> pa.Table:
    logp = [[-1.0, -2.0, -0.5]] * 9
    return pa.table({"behavior_logprobs": logp, "reference_logprobs": logp, "worker": ["a", "b", "c"] * 3})


def arrow(path: Path) -> Path:
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table().schema) as stream:
        stream.write_table(table(), max_chunksize=4)
    return path


def parquet(path: Path) -> Path:
    pq.write_table(table(), path)
    return path


FILES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "NeMo-RL": (lambda folder: nemo_rl.write_step(folder, 1, samples(5, turns=2), agents=True), "nemo-rl"),
    "prime-rl": (lambda folder: prime_rl.write_rank(folder, 1, 0, samples(5, turns=2), packed=2), "prime-rl"),
    "recorder": (lambda folder: parquet(folder / "log.parquet"), "recorder"),
    "arrow": (lambda folder: arrow(folder / "log.arrow"), "generic"),
}


@pytest.mark.parametrize("kind", FILES)
def test_damage_is_counted_or_named(tmp_path: Path, kind: str) -> None:
    write, format = FILES[kind]
    path = write(tmp_path)
    whole = path.read_bytes()
    random_ = random.Random(kind)
    refused = 0
    others = [*TEXT.values(), json_lines_damaged, with_another_value]
    for mutation in others if path.suffix == ".jsonl" else BYTES.values():
        for _ in range(ROUNDS):
            path.write_bytes(mutation(random_, whole))
            try:
                read_all(open_logs([path], format))
            except MismatchScopeError as error:
                assert path.name in error.message
                refused += 1
    path.write_bytes(whole)
    rows, rejected, _ = read_all(open_logs([path], format))
    assert rows.num_rows and not rejected
    assert kind in ("NeMo-RL", "prime-rl") or refused
