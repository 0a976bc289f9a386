"""Is the same response in the log twice, as where two ranks write what both hold?

A response is told by its tokens and log-probs. A long one does not come twice by chance; a greedy sampler repeats
itself, and is told by prompts that never have two different responses.

Shapes: S responses of a block, N their tokens that count, R their recorded tokens, H distinct contents.
"""

from __future__ import annotations

import numpy as np

from ...measures.log_results import DistributionCheck
from ...measures.prompt_hash import labels_of_ids
from ...reports.text import count, share
from ..block import UNKNOWN, LogBlock

CONTENTS = 2**15
_SURPRISE = 20.0
"""Nats: two draws of one response that is less likely than e⁻²⁰ do not happen in a log."""
_ROW = np.dtype(
    [
        ("key", np.uint64),
        ("copies", np.int64),
        ("cluster", np.int64),
        ("first", np.int64),
        ("source_low", np.int64),
        ("source_high", np.int64),
    ]
)
_FILE_BITS = np.int64(40)


class RepeatedResponses:
    """Keeps to `LogStatistic`: the contents with the smallest hashes, and how often each was there."""

    def __init__(self) -> None:
        self.responses = 0
        self._rows = np.zeros(0, dtype=_ROW)

    def add(self, block: LogBlock) -> None:
        mu_S, pi_S = (np.add.reduceat(logp_N, block.start_S) for logp_N in (block.logp_mu_N, block.logp_pi_N))
        rare_S = -mu_S > _SURPRISE
        if not rare_S.any():
            return
        rows = np.zeros(int(rare_S.sum()), dtype=_ROW)
        rows["key"] = contents(block, mu_S, pi_S)[rare_S]
        rows["copies"], rows["cluster"] = 1, block.cluster_S[rare_S]
        rows["first"] = block.sequence_id_S[rare_S]
        source_S = block.sequence_id_S >> _FILE_BITS
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
        merged["first"] = np.minimum.reduceat(joined["first"], start_H)
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
        examined = "all were examined" if kept == self.responses else f"{kept:,} of {self.responses:,} examined"
        elsewhere = int((repeated["source_low"] != repeated["source_high"]).sum())
        evidence = {"responses": extra, "in_other_files_or_ranks": elsewhere, "examined": kept}
        if not extra:
            return DistributionCheck(
                code="duplicates",
                status="pass",
                sentence=f"No response is there twice with the same tokens and log-probs ({examined}).",
                count=0,
                of=kept,
                evidence=evidence,
            )
        varied = len(np.unique(rows["cluster"])) < len(rows)
        sentence = (
            f"{count(extra, 'response')} ({share(extra / kept)}) are there again with the same tokens and "
            f"log-probs, {elsewhere:,} of the {len(repeated):,} repeated ones in another file or rank ({examined})."
        )
        if varied or 2 * elsewhere >= len(repeated):
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
            sentence=f"{sentence} No prompt has two different responses: a greedy sampler repeats itself.",
            count=extra,
            of=kept,
            evidence=evidence,
        )


def contents(block: LogBlock, mu_S: np.ndarray, pi_S: np.ndarray) -> np.ndarray:
    """A hash of each response's tokens that count, and of the sums of their log-probs, uint64 [S]."""
    weight_N = 2 * block.position_N + 1
    tokens_S = np.add.reduceat(block.token_id_N * weight_N, block.start_S)
    key_S = labels_of_ids(tokens_S ^ (block.length_S << np.int64(40))).view(np.uint64)
    for sum_S in (mu_S, pi_S):
        key_S = labels_of_ids((key_S ^ np.ascontiguousarray(sum_S).view(np.uint64)).view(np.int64)).view(np.uint64)
    return key_S
