"""Two files of llama.cpp -> two traces with the whole distribution of every state -> the report of `compare`.

Neither policy drew the tokens: both were given a text. So TV and KL are exact at the states of that text, and what
holds for tokens that μ drew is left out.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from ..comparison.compare_traces import compare
from ..errors import NotComparableError, UsageError
from ..logs.formats.llama_cpp import NAME, BaseFile
from ..logs.reading import Log
from ..logs.refusals import readable
from ..records import Evidence, Observed, Role, SequenceRecord
from ..reports.document import Report
from ..temporary import temporary_directory
from ..traces import store
from ..traces.identity import check_free
from ..traces.packing import sha256_of
from ..traces.reader import Trace
from ..traces.schema import Manifest, ModelFacts
from .settings import AnalysisSettings


def are_base_files(log: Log) -> bool:
    return log.format.name == NAME


def compare_base_files(
    log: Log,
    named: Sequence[Path],
    settings: AnalysisSettings,
    *,
    directory: Path | None = None,
    command: str = "",
    started: float | None = None,
    on_tokens: Callable[[int], None] = lambda tokens: None,
) -> Report:
    """Measure the first file against the second, in the order in which they were `named`.

    The traces are kept in `directory`, where one is given; they take 4 bytes an id and state. Raises `UsageError`
    for one file or three, `NotComparableError` for two of other texts, `DiskFullError`, and `TraceError`.
    """
    with temporary_directory() as temporary:
        traces = convert_base_files(log, named, temporary / "traces" if directory is None else directory)
        return compare(
            traces["behavior"],
            traces["reference"],
            confidence=settings.confidence,
            tail=settings.tail,
            max_rejected=settings.max_rejected,
            command=command,
            started=started,
            on_rows=on_tokens,
        )


def convert_base_files(log: Log, named: Sequence[Path], directory: Path) -> dict[Role, Trace]:
    """Write the traces of two files into a directory, which is free; raises as `compare_base_files`."""
    if len(log.files) != 2:
        raise UsageError(
            f"A comparison needs two files of llama.cpp, these are {len(log.files)}.",
            hint="name the file of μ first, then that of π",
        )
    check_free(directory, hint="choose another directory for the traces")
    order = {path: place for place, path in enumerate(named)}
    paths = sorted(log.files, key=lambda path: order.get(path, len(order)))
    files = []
    for path in paths:
        with readable(path):
            files.append(BaseFile(path))
            _ = files[-1].tokens
    chunks = min(file.chunks for file in files)
    if not np.array_equal(files[0].tokens[:chunks], files[1].tokens[:chunks]):
        raise NotComparableError(
            f"{paths[0]} and {paths[1]} are of other texts, or of another --ctx-size.",
            hint="write both with the same -f, -c and tokenizer",
        )
    roles: tuple[Role, Role] = ("behavior", "reference")
    return {
        role: _trace(directory / role, role, path, file, chunks)
        for role, path, file in zip(roles, paths, files, strict=True)
    }


def _trace(directory: Path, role: Role, path: Path, file: BaseFile, chunks: int) -> Trace:
    manifest = Manifest(
        engine="llama.cpp",
        role=role,
        policy="raw",
        path="prefill",
        evidence=Evidence("full"),
        model=ModelFacts(vocabulary_size=file.vocabulary),
        temperature=1.0,
        settings={"log": {"format": NAME, "files": {str(path): sha256_of(path)}}},
        notes=_notes(path, file, chunks),
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )
    with readable(path):
        store.write_records(directory, manifest, _records(file, chunks))
    return Trace.open(directory, verify=False)


def _records(file: BaseFile, chunks: int) -> Iterator[SequenceRecord]:
    for number in range(chunks):
        chunk = file.chunk(number)
        yield SequenceRecord(
            sequence_id=number,
            prompt_id=number,
            prompt_token_ids=chunk.prompt,
            response_token_ids=chunk.response,
            finish_reason="length",
            observed=Observed(
                logprob_T=chunk.logp_R,
                full_row_R=np.arange(len(chunk.response)),
                full_logprobs_RV=chunk.logp_RV,
            ),
        )


def _notes(path: Path, file: BaseFile, chunks: int) -> list[str]:
    notes = [
        f"{path.name} has log-probs in steps of up to {16 / 65535:.1e} nats, and none for what is 16 nats or more "
        "below the likeliest id: those ids share what the others leave of the mass."
    ]
    if chunks < file.declared_chunks:
        notes.append(f"Of the {file.declared_chunks:,} chunks of {path.name} {chunks:,} are compared.")
    return notes
