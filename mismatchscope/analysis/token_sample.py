"""A sample of the whole responses of a log, for a diagnosis: those of the smallest hash, as many as fit.

The hash is of what a response says, so that every order and split of a log, and of its files, chooses the same.
Values that no policy has are kept: they are evidence.

Shapes: as in `block`, and [N] of all tokens that are kept.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..comparison.token_evidence import MOST_TOKENS
from ..diagnosis.evidence import TokenEvidence
from ..measures.label_sums import cluster_hash
from .block import UNKNOWN, LogBlock

_LABELS = ("step", "policy_version", "lag", "worker", "environment", "rank")
"""By response; the log's own, which every block of it has or has not."""


class _Response(NamedTuple):
    """The smallest hashes are kept. `columns` has token ids, log μ, log π and positions of tokens that the mask
    keeps, and `versions` those of the weights that sampled them, where the log has them by token."""

    order: tuple[int, int]
    columns: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
    versions: np.ndarray | None
    cluster: int
    prompt: tuple[int, int] | None
    """Length and last token of the prompt, where the log has it."""
    labels: dict[str, Any]

    @property
    def tokens(self) -> int:
        return len(self.columns[0])


class TokenSample:
    """Keeps so many tokens, whatever the size of the log."""

    def __init__(self) -> None:
        self._kept: list[_Response] = []
        self._tokens = self.seen = 0
        self._limit: tuple[int, int] | None = None
        """No response with a larger hash can be kept any more."""

    def add(self, block: LogBlock) -> None:
        """Take in whole responses, none of them twice."""
        stop_S = np.cumsum(block.recorded_S)
        self.seen += int(np.count_nonzero(block.mask_R))
        order_S = _hash(block)
        prompts = _prompts(block)
        for at in np.argsort(order_S, kind="stable").tolist():
            order = int(order_S[at]), int(block.sequence_id_S[at])
            if self._limit is not None and order > self._limit:
                break
            of_R = slice(int(stop_S[at] - block.recorded_S[at]), int(stop_S[at]))
            response = _response(block, at, of_R, order, prompts)
            self._kept.append(response)
            self._tokens += response.tokens
            if self._tokens > 2 * MOST_TOKENS:
                self._cut()
        self._cut()

    def merge(self, other: TokenSample) -> None:
        """Take in what another one has seen of other responses."""
        self._kept += other._kept
        self._tokens += other._tokens
        self.seen += other.seen
        self._cut()

    def _cut(self) -> None:
        if self._tokens <= MOST_TOKENS:
            return
        self._kept.sort(key=lambda response: response.order)
        upto = np.cumsum([response.tokens for response in self._kept])
        kept = max(1, int(np.searchsorted(upto, MOST_TOKENS, side="right")))
        del self._kept[kept:]
        self._tokens = int(upto[kept - 1])
        self._limit = self._kept[-1].order

    @property
    def contradictions(self) -> tuple[str, ...]:
        """What of the labels cannot be, and so is no evidence, as a clause."""
        early = sum(_is_early(response.labels.get("lag")) for response in self._kept)
        if not early:
            return ()
        were = "response was" if early == 1 else "responses were"
        return (f"by lag: {early:,} {were} sampled by later weights than the trainer's, says the log",)

    def evidence(self) -> TokenEvidence | None:
        """In the order of the responses' numbers; None where nothing is kept."""
        if not self._kept:
            return None
        kept = sorted(self._kept, key=lambda response: response.order[1])
        tokens_S = np.array([response.tokens for response in kept])
        token_N, mu_N, pi_N, position_N = (
            np.concatenate([response.columns[place] for response in kept]) for place in range(4)
        )
        sequence_N = np.repeat(np.arange(len(kept)), tokens_S)
        _, prompt_S = np.unique([response.cluster for response in kept], return_inverse=True)
        has_ids = bool((token_N >= 0).all())
        known = [response.prompt for response in kept if response.prompt is not None]
        lengths = np.array([length for length, _ in known]) if len(known) == len(kept) else None
        return TokenEvidence(
            logp_mu_N=mu_N,
            logp_pi_N=pi_N,
            sequence_N=sequence_N,
            position_N=position_N.astype(np.int64),
            prompt_S=prompt_S,
            token_N=token_N.astype(np.int64) if has_ids else None,
            previous_N=_before(token_N, position_N, sequence_N, kept) if has_ids else None,
            prompt_length_S=lengths,
            metadata=_metadata(kept),
            version_N=_versions(kept),
            name_S=np.array([str(response.order[1]) for response in kept]),
            in_order=True,
            tokens_seen=self.seen,
        )


def _hash(block: LogBlock) -> np.ndarray:
    """Of the tokens of each response and of what μ gives them, int64 [S]."""
    with np.errstate(over="ignore"):
        said_R = block.logp_R["behavior"].view(np.uint64) + block.token_id_R.astype(np.uint64)
        said_R *= 2 * block.position_R.astype(np.uint64) + np.uint64(1)
        sum_S = np.add.reduceat(said_R, np.cumsum(block.recorded_S) - block.recorded_S)
    return cluster_hash(sum_S.view(np.int64))


def _response(
    block: LogBlock, at: int, of_R: slice, order: tuple[int, int], prompts: list[tuple[int, int]] | None
) -> _Response:
    mask_R = block.mask_R[of_R]
    columns = (block.token_id_R, block.logp_R["behavior"], block.logp_R["reference"], block.position_R)
    token_R, mu_R, pi_R, position_R = (column_R[of_R][mask_R] for column_R in columns)
    versions = block.by_token.get("versions")
    return _Response(
        order,
        (token_R.astype(np.int32), mu_R, pi_R, position_R.astype(np.int32)),
        None if versions is None else versions[of_R][mask_R],
        int(block.cluster_S[at]),
        None if prompts is None else prompts[at],
        {name: value_S[at] for name in _LABELS if (value_S := block.label_S(name)) is not None},
    )


def _prompts(block: LogBlock) -> list[tuple[int, int]] | None:
    """(length, last token) of each response's prompt; None where the log has none."""
    rows = block.batch.rows
    if "prompt_token_ids" not in rows.schema.names or rows.num_rows != len(block.recorded_S):
        return None
    column = rows.column("prompt_token_ids")
    if column.null_count:
        return None
    from ..traces.columns import flat

    id_F, length_S = flat(column)
    end_S = np.cumsum(length_S)
    return [
        (int(length), int(id_F[end - 1]) if length else -1) for length, end in zip(length_S, end_S, strict=True)
    ]


def _before(
    token_N: np.ndarray, position_N: np.ndarray, sequence_N: np.ndarray, kept: list[_Response]
) -> np.ndarray:
    """The token before each one; −1 where it is not known, as after a token that the mask leaves out."""
    before_N = np.full(len(token_N), -1, dtype=np.int64)
    next_N = np.flatnonzero((np.diff(sequence_N) == 0) & (np.diff(position_N) == 1)) + 1
    before_N[next_N] = token_N[next_N - 1]
    first_N = np.flatnonzero(position_N == 0)
    last = np.array([-1 if response.prompt is None else response.prompt[1] for response in kept])
    before_N[first_N] = last[sequence_N[first_N]]
    return before_N


def _is_early(lag: int | None) -> bool:
    return lag is not None and UNKNOWN != lag < 0


def _versions(kept: list[_Response]) -> np.ndarray | None:
    """None where a token has none."""
    found = [response.versions for response in kept if response.versions is not None]
    version_N = np.concatenate(found) if len(found) == len(kept) else None
    return None if version_N is None or (version_N == UNKNOWN).any() else version_N


def _metadata(kept: list[_Response]) -> dict[str, np.ndarray]:
    """Columns that vary and can be; numbers as floats, NaN where a log does not know, and texts, "" where it does
    not."""
    found = {}
    for name in _LABELS:
        values = [response.labels[name] for response in kept if name in response.labels]
        if len(values) < len(kept) or len(set(values)) < 2:
            continue
        if name == "lag" and any(map(_is_early, values)):
            continue
        if isinstance(values[0], str):
            found[name] = np.array(values)
        else:
            found[name] = np.array([np.nan if value == UNKNOWN else float(value) for value in values])
    return found
