"""The rows of a log -> traces: of μ, of π_old and, where the log has it, of π_θ, for `compare` to read.

Responses and tokens are those that an analysis measures, in the order of the log, so that both give the same
figures. A token that counts in none keeps its place, with a log-prob of NaN; a response of such tokens alone is
left out. The log is read once for each trace, and nothing of it is held.

Shapes: S responses of a block, T tokens of one.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Set
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import EmptyComparisonError, NotComparableError
from ..logs.columns import LOGPROBS
from ..logs.reading import Log
from ..records import Evidence, Observed, Role, SequenceRecord
from ..traces import store
from ..traces.identity import check_free
from ..traces.packing import sha256_of
from ..traces.reader import Trace
from ..traces.schema import Manifest
from .block import UNKNOWN, LogBlock
from .mapping import numbered
from .repairs import UNREPAIRED, Repairs
from .rows import Rejected, blocks_of

LISTED_FILES = 1000
"""So many files of a log are named in a manifest, with their checksums."""

_OF_THE_LOG = ("step", "environment", "reward", "rank", "trainer_version")


def convert(log: Log, directory: Path, repairs: Repairs = UNREPAIRED) -> dict[Role, Trace]:
    """Write a trace for each policy of a log into `directory`, which is free; by role, as they are called there.

    Raises `NotComparableError` for a log without token ids, `EmptyComparisonError` where no token has log-probs of
    both policies, `OutputExistsError`, `DiskFullError`, and what reading the log raises.
    """
    check_free(directory, hint="choose another directory for the traces")
    facts = _provenance(log)
    traces: dict[Role, Trace] = {}
    roles: list[Role] = ["behavior", "reference", "target"]
    for role in roles:
        records = _records(log, role, repairs)
        first = next(records, None)
        if first is None and role == "target":
            break
        if first is None:
            raise EmptyComparisonError(
                "No token of this log has a legal log-prob of both policies, so there is nothing to convert.",
                hint="mismatchscope analyze says what was rejected, and why",
            )
        manifest = _manifest(log, role, facts)
        store.write_records(directory / role, manifest, chain([first], records))
        traces[role] = Trace.open(directory / role, verify=False)
    return traces


def convert_some(
    log: Log, directory: Path, affected: Set[int] | None, most: int, repairs: Repairs = UNREPAIRED
) -> Trace:
    """Write a trace of μ with responses of a log under their own ids: at most so many of the `affected` ones (None:
    all are), and as many others, of other workers where some workers alone are affected.

    Raises what `convert` does.
    """
    workers = {True: set[str | None](), False: set[str | None]()}
    kept: dict[bool, list[SequenceRecord]] = {True: [], False: []}
    for record in _records(log, "behavior", repairs):
        record = replace(record, sequence_id=record.extra["log_sequence_id"])
        is_affected = affected is None or record.sequence_id in affected
        workers[is_affected].add(record.worker)
        if len(kept[is_affected]) < most:
            kept[is_affected].append(record)
    if workers[False] - workers[True]:
        kept[False] = [record for record in kept[False] if record.worker not in workers[True]]
    manifest = _manifest(log, "behavior")
    chosen = sorted([*kept[True], *kept[False]], key=lambda record: record.sequence_id)
    store.write_records(directory, manifest, chosen)
    return Trace.open(directory, verify=False)


def _records(log: Log, role: Role, repairs: Repairs) -> Iterator[SequenceRecord]:
    """The responses as one policy saw them, numbered in the order of the log."""
    prompts: dict[int, int] = {}
    number = 0
    for file, part in numbered(log.parts()):
        for batch in log.read(part):
            for block in blocks_of(repairs.applied(batch, file), Rejected(), file):
                if role not in block.logp_R:
                    continue
                yield from _of_block(block, role, number, prompts)
                number += len(block.recorded_S)


def _of_block(block: LogBlock, role: Role, number: int, prompts: dict[int, int]) -> Iterator[SequenceRecord]:
    rows = block.batch.rows
    names = set(rows.schema.names)
    if "token_ids" not in names or rows.column("token_ids").null_count:
        raise NotComparableError(
            "Responses of this log have no token ids, which a trace needs.", hint="mismatchscope analyze needs none"
        )
    prompt_S = rows.column("prompt_token_ids").to_pylist() if "prompt_token_ids" in names else None
    end_S = np.cumsum(block.recorded_S)
    logp_R = np.where(block.counts_R, block.logp_R[role], np.nan)
    for at, (start, end) in enumerate(zip(end_S - block.recorded_S, end_S, strict=True)):
        tokens_P = None if prompt_S is None else prompt_S[at]
        truncated = _value(block, "truncated", at)
        yield SequenceRecord(
            sequence_id=number + at,
            prompt_id=prompts.setdefault(int(block.cluster_S[at]), len(prompts)),
            prompt_token_ids=np.array([] if tokens_P is None else tokens_P, dtype=np.int32),
            response_token_ids=block.token_id_R[start:end].astype(np.int32),
            finish_reason={True: "length", False: "stop"}.get(truncated),  # type: ignore[arg-type]
            observed=Observed(logprob_T=logp_R[start:end]),
            policy_version=_value(block, "policy_version", at),
            worker=_value(block, "worker", at),
            mask_T=block.mask_R[start:end],
            extra=_extra(block, at),
        )


def _extra(block: LogBlock, at: int) -> dict[str, Any]:
    values = {name: _value(block, name, at) for name in _OF_THE_LOG}
    values["log_sequence_id"] = int(block.sequence_id_S[at])
    return {name: value for name, value in values.items() if value is not None}


def _value(block: LogBlock, name: str, at: int) -> Any:
    """What the log says of a response; None where it says nothing."""
    if name not in block.by_row:
        return None
    value = block.by_row[name][at]
    value = value.item() if isinstance(value, np.generic) else value
    return None if value in ("", UNKNOWN) or value != value else value


def _manifest(log: Log, role: Role, facts: dict[str, Any] | None = None) -> Manifest:
    """`facts` are those of `_provenance`, which reads every file, where they are known."""
    return Manifest(
        engine=log.format.name,
        role=role,
        policy="processed",
        path="rollout" if role == "behavior" else "prefill",
        evidence=Evidence("sampled"),
        settings={"log": _provenance(log) if facts is None else facts},
        notes=_notes(log, role),
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )


def _provenance(log: Log) -> dict[str, Any]:
    return {
        "format": log.format.name,
        "files": {str(path): sha256_of(path) for path in log.files[:LISTED_FILES]},
        "number_of_files": len(log.files),
        "columns": {origin.column: origin.source for origin in log.columns},
    }


def _notes(log: Log, role: Role) -> list[str]:
    """What a person should know of this policy's column."""
    notes = [
        f"{origin.source} may be of another policy than {origin.policy}: {origin.remark}."
        for origin in log.columns
        if origin.column == LOGPROBS[role] and not origin.settled
    ]
    if log.format.selects:
        notes.append(f"What is left is a selection: {log.format.selects}.")
    return notes + list(log.remarks)
