"""llama.cpp's files of `llama-perplexity --kl-divergence-base`: the log-probs of the whole vocabulary along a text.

Source: `tools/perplexity/perplexity.cpp`. Behind the magic, three integers of 32 bits (tokens of a chunk, ids of
the vocabulary, chunks) and the tokens of all chunks; then for each chunk a row for each state of its second half
but the last: step and floor as float32, and a code of 16 bits for each id. A log-prob is floor + step · code. The
floor is 16 nats below the likeliest id, or the least likely id where that is nearer: what is below it has code 0.

Shapes: C tokens of a chunk, R rows of it, V vocabulary.
"""

from __future__ import annotations

import mmap
import struct
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from ...input_files import open_regular
from ...measures.prompt_hash import label_of
from ..checked_rows import CheckedRows
from ..source import ColumnOrigin, LogBatch, LogFormat, Part

NAME = "llama-cpp"
MAGIC = b"_logits_"
_HEADER = struct.Struct("<8siii")
_CODES = 65535
_NATS = 16.0
_IN_MEMORY = 2**28
_UNRESOLVED = 1e-3
"""Share of the largest mass below the floor that is given to it where rounding leaves nothing of the sum of 1."""


@dataclass(frozen=True, eq=False)
class Chunk:
    """A stretch of the text: the first tokens are the prompt, the rest is what the rows predict.

    `logp_RV` are normalised float32, `logp_R` those of the response; `below_R` is the mass that each row gives to
    ids below its floor, which have one log-prob.
    """

    prompt: np.ndarray
    response: np.ndarray
    logp_RV: np.ndarray
    below_R: np.ndarray

    @property
    def logp_R(self) -> np.ndarray:
        return self.logp_RV[np.arange(len(self.response)), self.response].astype(np.float64)


class BaseFile:
    """A file of log-probs. Raises `ValueError` for anything else, and what `open_regular` raises."""

    def __init__(self, path: Path) -> None:
        with open_regular(path) as file:
            try:
                self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except ValueError:
                raise ValueError("it is empty") from None
        if len(self._data) < _HEADER.size or not self._data[:8] == MAGIC:
            raise ValueError("it is no file of --kl-divergence-base")
        _, self.chunk_tokens, self.vocabulary, self.declared_chunks = _HEADER.unpack_from(self._data)
        if self.chunk_tokens < 4 or self.vocabulary < 1 or self.declared_chunks < 1:
            raise ValueError(
                f"its header says {self.declared_chunks:,} chunks of {self.chunk_tokens:,} tokens over "
                f"{self.vocabulary:,} ids"
            )
        if self.chunks < 1:
            raise ValueError("it ends before its first chunk does")
        if self._rows_at + self.declared_chunks * self._chunk_bytes < len(self._data):
            raise ValueError("it has more bytes than its header says")

    @property
    def prompt_tokens(self) -> int:
        """Of a chunk: the first half, and the token after it, which no row predicts."""
        return self.chunk_tokens // 2 + 1

    @property
    def rows(self) -> int:
        return self.chunk_tokens - self.prompt_tokens

    @property
    def _row_codes(self) -> int:
        return 4 + 2 * ((self.vocabulary + 1) // 2)

    @property
    def _chunk_bytes(self) -> int:
        return 2 * self._row_codes * self.rows

    @property
    def _rows_at(self) -> int:
        return _HEADER.size + 4 * self.chunk_tokens * self.declared_chunks

    @property
    def chunks(self) -> int:
        """That are there as a whole: of a run that goes on, or was stopped, the last are missing."""
        return min(self.declared_chunks, max(0, len(self._data) - self._rows_at) // self._chunk_bytes)

    @cached_property
    def tokens(self) -> np.ndarray:
        """int32 [chunks, C]. Raises `ValueError` for a token outside of the vocabulary."""
        count = self.declared_chunks * self.chunk_tokens
        tokens = np.frombuffer(self._data, "<i4", count=count, offset=_HEADER.size).reshape(-1, self.chunk_tokens)
        tokens = tokens[: self.chunks]
        if not 0 <= tokens.min() <= tokens.max() < self.vocabulary:
            raise ValueError(f"it has tokens outside of its vocabulary of {self.vocabulary:,}")
        return tokens

    def chunk(self, number: int) -> Chunk:
        """Raises `ValueError` for a row that is no distribution."""
        tokens = self.tokens[number]
        codes = np.frombuffer(
            self._data,
            "<u2",
            count=self.rows * self._row_codes,
            offset=self._rows_at + number * self._chunk_bytes,
        ).reshape(self.rows, -1)
        scales = np.ascontiguousarray(codes[:, :4]).view("<f4")
        logp_RV = _room((self.rows, self.vocabulary))
        below_R = np.empty(self.rows)
        for row, (step, floor) in enumerate(scales):
            if not (0 <= step <= 1 and -1e4 < floor <= 0):
                raise ValueError(f"row {row} of chunk {number} is no distribution")
            below_R[row] = decode(codes[row, 4 : 4 + self.vocabulary], float(step), float(floor), logp_RV[row])
        return Chunk(tokens[: self.prompt_tokens], tokens[self.prompt_tokens :], logp_RV, below_R)


def _room(shape: tuple[int, int]) -> np.ndarray:
    """For float32; on the disk where it would take much of the memory."""
    if 4 * shape[0] * shape[1] <= _IN_MEMORY:
        return np.empty(shape, np.float32)
    with tempfile.TemporaryFile() as file:
        return np.memmap(file, np.float32, shape=shape)


def decode(code_V: np.ndarray, step: float, floor: float, logp_V: np.ndarray) -> float:
    """Write the normalised log-probs of a row to `logp_V`; the mass of the ids below its floor is returned.

    Of those the row says only that they are at most at the floor. What the others leave of 1 is theirs, the same
    for each.
    """
    value_V = step * code_V.astype(np.float64) + floor
    mass, below = np.exp(value_V), code_V == 0
    count = int(below.sum())
    is_cut = step * _CODES > 0.999 * _NATS
    share = 0.0
    if is_cut and count:
        largest = count * float(np.exp(floor))
        share = min(max(1.0 - float(mass[~below].sum()), _UNRESOLVED * largest), largest)
        value_V[below] = np.log(share / count)
    total = float(np.logaddexp.reduce(value_V))
    np.subtract(value_V, total, out=logp_V, casting="same_kind")
    return share / float(np.exp(total))


def recognises(path: Path, head: bytes) -> bool:
    """Whether a file begins as one."""
    return head.startswith(MAGIC)


def parts_of(path: Path) -> list[Part]:
    """A part a chunk."""
    return [Part(path, number, number + 1) for number in range(BaseFile(path).chunks)]


def read(part: Part) -> Iterator[LogBatch]:
    """The log-probs of the text's own tokens. A file has those of one policy."""
    file, builder = BaseFile(part.path), CheckedRows()
    for number in range(part.start, file.chunks if part.stop is None else part.stop):
        chunk = file.chunk(number)
        builder.add(
            {
                "sequence_id": number,
                "prompt": int(label_of([chunk.prompt])[0]),
                "prompt_token_ids": chunk.prompt,
                "token_ids": chunk.response,
                "behavior_logprobs": chunk.logp_R,
            }
        )
    yield LogBatch(builder.batch(), part, builder.rejected)


FORMAT = LogFormat(
    name=NAME,
    looks_for="two files of llama-perplexity --kl-divergence-base",
    recognises=recognises,
    parts=parts_of,
    read=read,
    compares_files=True,
    columns=(
        ColumnOrigin("behavior_logprobs", "the first file", "behavior"),
        ColumnOrigin("reference_logprobs", "the second file", "reference"),
    ),
)
