"""Is the same response in the log twice, as where two ranks write what both hold?

A response is told by its length and by tokens and log-probs at places all along it. A long one does not come twice
by chance; a greedy sampler repeats itself, and is told by prompts whose responses are mostly one.

Shapes: S responses of a block, P places, R recorded tokens, H distinct contents.
"""

from __future__ import annotations

import numpy as np

from ...measures.log_results import DistributionCheck
from ...measures.prompt_hash import labels_of_tokens
from ...reports.text import count, share
from ..block import UNKNOWN, LogBlock
from ..rows import FILE_BITS

PLACES = 16
CONTENTS = 2**15
_SURPRISE = 30.0
"""Nats: two draws of a response that is less likely than e⁻³⁰ do not happen in a log."""
_LEAST, _LEAST_SHARE = 2, 0.001
_OF_A_SAMPLER = 0.6
"""A larger share of a prompt's responses that are the same one is a greedy sampler's."""
_ROW = np.dtype(
    [
        ("key", np.uint64),
        ("copies", np.int64),
        ("cluster", np.int64),
        ("source_low", np.int64),
        ("source_high", np.int64),
    ]
)


class RepeatedResponses:
    """Keeps to `LogStatistic`: the contents with the smallest hashes, and how often each was there."""

    def __init__(self) -> None:
        self.responses = 0
        """Of those that could not be drawn twice."""
        self._rows = np.zeros(0, dtype=_ROW)

    def add(self, block: LogBlock) -> None:
        content_S, surprise_S = contents(block)
        rare_S = rare(surprise_S)
        rows = np.zeros(int(rare_S.sum()), dtype=_ROW)
        rows["key"], rows["copies"], rows["cluster"] = content_S[rare_S], 1, block.cluster_S[rare_S]
        source_S = block.sequence_id_S >> np.int64(FILE_BITS)
        if "rank" in block.by_row:
            rank_S = block.by_row["rank"]
            source_S = source_S * 2**20 + np.where(rank_S == UNKNOWN, 0, rank_S)
        rows["source_low"] = rows["source_high"] = source_S[rare_S]
        self.responses += len(rows)
        self._take(rows)

    def merge(self, other: RepeatedResponses) -> None:
        self.responses += other.responses
        self._take(other._rows)

    def _take(self, rows: np.ndarray) -> None:
        if not len(rows):
            return
        joined = np.concatenate([self._rows, rows])
        joined = joined[np.argsort(joined["key"], kind="stable")]
        start_H = np.flatnonzero(np.append(True, joined["key"][1:] != joined["key"][:-1]))
        merged = joined[start_H]
        merged["copies"] = np.add.reduceat(joined["copies"], start_H)
        merged["source_low"] = np.minimum.reduceat(joined["source_low"], start_H)
        merged["source_high"] = np.maximum.reduceat(joined["source_high"], start_H)
        self._rows = merged[:CONTENTS]

    def result(self) -> DistributionCheck:
        rows = self._rows
        kept = int(rows["copies"].sum())
        if not kept:
            sentence = "No response is so unlikely that it could not have been drawn twice."
            return DistributionCheck(code="duplicates", status="unknown", sentence=sentence, of=0)
        repeated = rows[rows["copies"] > 1]
        extra = int(repeated["copies"].sum()) - len(repeated)
        elsewhere = int((repeated["source_low"] != repeated["source_high"]).sum())
        all_of_them = f"all {kept:,} that could not be drawn twice were examined"
        examined = all_of_them if kept == self.responses else f"{kept:,} of {self.responses:,} were examined"
        evidence = {"responses": extra, "in_other_files_or_ranks": elsewhere, "examined": kept}
        if extra < max(_LEAST, _LEAST_SHARE * kept):
            return DistributionCheck(
                code="duplicates",
                status="pass",
                sentence=f"{count(extra, 'response')} came twice with the same tokens and log-probs ({examined}).",
                count=extra,
                of=kept,
                evidence=evidence,
            )
        sentence = (
            f"{count(extra, 'response')} ({share(extra / kept)}) came before with the same tokens and log-probs: "
            f"copies of {len(repeated):,}, of which {elsewhere:,} are in several files or ranks ({examined})."
        )
        alike = _alike_within_prompts(rows, complete=kept == self.responses)
        by_rank = 2 * elsewhere >= len(repeated) and int(rows["copies"].max()) == 2
        if (alike is not None and alike <= _OF_A_SAMPLER) or by_rank:
            return DistributionCheck(
                code="duplicates",
                status="fail",
                sentence=sentence,
                count=extra,
                of=kept,
                evidence=evidence,
                fix="analyze the files of one rank of each group that holds the same data, or --drop-duplicates",
            )
        return DistributionCheck(
            code="duplicates",
            status="unknown",
            sentence=f"{sentence} A greedy sampler that repeats itself looks like this.",
            count=extra,
            of=kept,
            evidence=evidence,
        )


def _alike_within_prompts(rows: np.ndarray, *, complete: bool) -> float | None:
    """Share of the responses of prompts with several that are the prompt's most frequent one.

    Where contents were left out, of the prompts that show two of them: others may have had more.
    """
    _, prompt_H = np.unique(rows["cluster"], return_inverse=True)
    copies_P, contents_P = np.bincount(prompt_H, rows["copies"]), np.bincount(prompt_H)
    largest_P = np.zeros(len(copies_P))
    np.maximum.at(largest_P, prompt_H, rows["copies"])
    several_P = copies_P > 1 if complete else contents_P > 1
    return float(largest_P[several_P].sum() / copies_P[several_P].sum()) if several_P.any() else None


def rare(surprise_S: np.ndarray) -> np.ndarray:
    """Which responses are so unlikely that two equal ones are one, written twice, bool [S]."""
    return surprise_S > _SURPRISE


def contents(block: LogBlock) -> tuple[np.ndarray, np.ndarray]:
    """(a hash of each response's content, uint64 [S]; its −log μ as far as the places tell [S])."""
    last_S = block.recorded_S - 1
    start_S = np.cumsum(block.recorded_S) - block.recorded_S
    at_SP = start_S[:, None] + (last_S[:, None] * np.arange(PLACES)) // (PLACES - 1)
    mu_SP = block.logp_R["behavior"][at_SP]
    parts = [block.token_id_R[at_SP], mu_SP.view(np.int64), block.logp_R["reference"][at_SP].view(np.int64)]
    parts.append(np.broadcast_to(block.recorded_S[:, None], (len(start_S), 1)))
    content_SP = np.concatenate(parts, axis=1)
    label_S = labels_of_tokens(content_SP.ravel(), np.full(len(start_S), content_SP.shape[1]))
    counts_SP = block.counts_R[at_SP]
    mean_S = np.where(counts_SP, -mu_SP, 0.0).sum(axis=1) / np.maximum(counts_SP.sum(axis=1), 1)
    return label_S.view(np.uint64), mean_S * block.length_S
