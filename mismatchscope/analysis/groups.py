"""A log's sums by step, version, lag, worker, environment, turn, length, position, log-prob and rank, each with the
prompt as the cluster.

Every table of the report, its trends, and what is said of staleness and of workers are functions of these sums.

Shapes: S responses, U units (responses or segments), B bins of log-prob, F columns of a table.
"""

from __future__ import annotations

import hashlib
from typing import get_args

import numpy as np

from ..measures.binned_sums import FIGURES, TOKENS
from ..measures.label_sums import MAX_ROWS, LabelSums
from ..measures.log_results import GroupKind
from .block import UNKNOWN, LogBlock
from .cells import SUMMED, CellSums
from .length_scaling import LengthScalingSums
from .prompt_effect import PromptEffectSums
from .segments import Segments, segments_of

Array = np.ndarray

KINDS: tuple[GroupKind, ...] = get_args(GroupKind)
OF_RESPONSES: tuple[GroupKind, ...] = ("step", "worker", "environment", "length", "rank")
"""Labels that a response has as a whole; of the others its tokens may have several."""
TEXTS: tuple[GroupKind, ...] = ("worker", "environment")

RESPONSES = FIGURES
WHOLE, WHOLE_LOG_RATIO, WHOLE_TV = range(FIGURES + 1, FIGURES + 4)
REWARD, REWARDS, ENTROPY, ENTROPIES, LAG, LAGS = range(FIGURES + 4, FIGURES + 10)
"""Columns after those of `segments`: responses; whole ones, their log ρ(y) and (1 − ρ(y))₊; and of steps alone what
is not about the two policies, each with how many values there are."""
EARLY, LATE = 3, 4
"""Bins of position: those below the first are near the prompt, the second is not and most responses reach it (64 to
255)."""


class GroupSums:
    """Tables of sums by label and prompt, by kind of label; empty where a log has no such label."""

    def __init__(self) -> None:
        self.tables: dict[str, LabelSums] = {}
        for kind in KINDS:
            columns = LAGS + 1 if kind == "step" else WHOLE_TV + 1 if kind in OF_RESPONSES else RESPONSES + 1
            rows = 2 * MAX_ROWS if kind == "step" else MAX_ROWS  # a thousand steps of 256 prompts each
            self.tables[kind] = LabelSums(columns, 2 if kind in OF_RESPONSES else 0, rows)
        self.tables["place"] = LabelSums(RESPONSES + 1)  # by 2 · step, and one more for late positions
        self.cells = CellSums()
        self.texts: dict[int, str] = {}
        self.prompt_effect, self.length_scaling = PromptEffectSums(), LengthScalingSums()

    def add(self, block: LogBlock) -> None:
        segments = segments_of(block)
        self.prompt_effect.add(segments)
        self.length_scaling.add(segments)
        lag_U = _lags(segments)
        label_KS = {kind: self._labels(kind, block) for kind in OF_RESPONSES}
        self._add_responses(segments, label_KS, lag_U)
        of_segments: dict[str, Array | None] = {
            kind: None if label_S is None else label_S[segments.sequence_U] for kind, label_S in label_KS.items()
        }
        for kind, label_U in (
            ("version", _versions(segments)),
            ("lag", lag_U),
            ("turn", segments.turn_U),
            ("position", segments.position_bin_U),
            ("place", _twice(of_segments["step"], _places(segments))),
        ):
            if label_U is not None:
                self._add_segments(kind, label_U, segments)
        self._add_logprobs(segments)
        self.cells.add(
            {
                **of_segments,
                "lag": lag_U,
                "position": np.maximum(segments.position_bin_U, EARLY - 1),
                "prompt": block.cluster_S[segments.sequence_U],
            },
            segments.sum_UF[:, SUMMED],
        )

    def merge(self, other: GroupSums) -> None:
        for kind, table in self.tables.items():
            table.merge(other.tables[kind])
        self.cells.merge(other.cells)
        self.texts |= other.texts
        self.prompt_effect.merge(other.prompt_effect)
        self.length_scaling.merge(other.length_scaling)

    def _add_responses(
        self, segments: Segments, label_KS: dict[GroupKind, Array | None], lag_U: Array | None
    ) -> None:
        block = segments.block
        sum_SF, log_SG = _whole(segments)
        for kind, label_S in label_KS.items():
            if label_S is None:
                continue
            known_S = label_S != UNKNOWN
            value_SF = np.column_stack([sum_SF, _beside(segments, lag_U)]) if kind == "step" else sum_SF
            self.tables[kind].add(
                label_S[known_S],
                block.cluster_S[known_S],
                value_SF[known_S],
                log_SG[known_S],
                segments.max_S[known_S],
            )

    def _labels(self, kind: GroupKind, block: LogBlock) -> Array | None:
        if kind == "length":
            return np.frexp(block.length_S.astype(float))[1] - 1  # ⌊log₂⌋
        value_S = block.label_S(kind)
        if value_S is None or kind not in TEXTS:
            return None if value_S is None else value_S.astype(np.int64)
        text_L, index_S = np.unique(value_S.astype(str), return_inverse=True)
        label_L = np.array([_text_label(text) if text else UNKNOWN for text in text_L.tolist()], dtype=np.int64)
        self.texts.update(zip(label_L.tolist(), text_L.tolist(), strict=True))
        return label_L[index_S]

    def _add_segments(self, kind: str, label_U: Array, segments: Segments) -> None:
        known_U = label_U != UNKNOWN
        label_U, sequence_U = label_U[known_U].astype(np.int64), segments.sequence_U[known_U]
        if not len(label_U):
            return
        # A response counts once a label, however many segments it has.
        distinct_L, code_U = np.unique(label_U, return_inverse=True)
        _, first = np.unique(sequence_U * len(distinct_L) + code_U, return_index=True)
        once_U = np.zeros(len(label_U))
        once_U[first] = 1
        self.tables[kind].add(
            label_U,
            segments.block.cluster_S[sequence_U],
            np.column_stack([segments.sum_UF[known_U], once_U]),
            max_U=segments.max_U[known_U],
        )

    def _add_logprobs(self, segments: Segments) -> None:
        sum_SBF = np.add.reduceat(segments.sum_UBF, segments.first_S, axis=0)
        max_SB = np.maximum.reduceat(segments.max_UB, segments.first_S, axis=0)
        sequence_U, bin_U = np.nonzero(sum_SBF[:, :, TOKENS])
        sum_UF = sum_SBF[sequence_U, bin_U]
        self.tables["logprob"].add(
            bin_U,
            segments.block.cluster_S[sequence_U],
            np.column_stack([sum_UF, np.ones(len(sum_UF))]),
            max_U=max_SB[sequence_U, bin_U],
        )


def _whole(segments: Segments) -> tuple[Array, Array]:
    """Columns of responses [S, F], and the logarithms of ρ(y) and ρ(y)², −inf of those that are not whole."""
    whole_S, log_ratio_S = segments.block.whole_S, segments.sum_SF[:, 3]
    log_S = np.where(whole_S, log_ratio_S, -np.inf)
    shortfall_S = np.where(whole_S, -np.expm1(np.minimum(log_ratio_S, 0.0)), 0.0)
    ones_S = np.ones(len(whole_S))
    columns = [segments.sum_SF, ones_S, whole_S, np.where(whole_S, log_ratio_S, 0.0), shortfall_S]
    return np.column_stack(columns), np.column_stack([log_S, 2 * log_S])


def _beside(segments: Segments, lag_U: Array | None) -> Array:
    """Sums and counts of what is not about the two policies, [S, 6]: reward, entropy and lag; 0 where unknown."""
    block = segments.block
    found = []
    for value_N, start_S in (
        (block.by_row.get("reward"), None),
        (block.of_tokens("entropy"), block.start_S),
    ):
        if value_N is None:
            found += [np.zeros(len(block.whole_S))] * 2
            continue
        sum_S = value_N if start_S is None else np.add.reduceat(value_N, start_S)
        count_S = np.ones(len(sum_S)) if start_S is None else block.length_S
        if not np.isfinite(sum_S).all():
            known_N = np.isfinite(value_N)
            sum_S, count_S = (
                each_N if start_S is None else np.add.reduceat(each_N, start_S)
                for each_N in (np.where(known_N, value_N, 0.0), known_N.astype(float))
            )
        found += [sum_S, count_S]
    if lag_U is None:
        found += [np.zeros(len(block.whole_S))] * 2
    else:
        tokens_U = np.where(lag_U == UNKNOWN, 0.0, segments.sum_UF[:, TOKENS])
        for column_U in (tokens_U * np.where(lag_U == UNKNOWN, 0, lag_U), tokens_U):
            found.append(np.add.reduceat(column_U, segments.first_S))
    return np.column_stack(found)


def _versions(segments: Segments) -> Array | None:
    """The version that sampled each segment: its tokens' own, else that of the response."""
    version_S = segments.block.by_row.get("policy_version")
    of_response_U = None if version_S is None else version_S[segments.sequence_U]
    if segments.version_U is None or of_response_U is None:
        return of_response_U if segments.version_U is None else segments.version_U
    return np.where(segments.version_U == UNKNOWN, of_response_U, segments.version_U)


def _lags(segments: Segments) -> Array | None:
    version_U, trained_S = _versions(segments), segments.block.by_row.get("trainer_version")
    if version_U is None or trained_S is None:
        return None
    trained_U = trained_S[segments.sequence_U]
    known_U = (version_U != UNKNOWN) & (trained_U != UNKNOWN)
    return np.where(known_U, np.where(known_U, trained_U, 0) - np.where(known_U, version_U, 0), UNKNOWN)


def _places(segments: Segments) -> Array:
    bin_U = segments.position_bin_U
    return np.where(bin_U < EARLY, 0, np.where(bin_U == LATE, 1, UNKNOWN))


def _twice(step_U: Array | None, which_U: Array | None) -> Array | None:
    """2 · step + which; unknown where either is."""
    if step_U is None or which_U is None:
        return None
    known_U = (step_U != UNKNOWN) & (which_U != UNKNOWN)
    return np.where(known_U, 2 * np.where(known_U, step_U, 0) + np.where(known_U, which_U, 0), UNKNOWN)


def _text_label(text: str) -> int:
    """A number that every process gives the same text."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest(), signed=True)
