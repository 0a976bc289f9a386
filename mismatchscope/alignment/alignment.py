"""Two traces of the same tokens, read side by side in blocks of whole sequences, and proved to be the same.

μ is the behaviour trace, π the reference. Everything that would make a comparison mean something else is an error
here; what is merely worth knowing is a note. Memory holds one block, whatever the traces hold.

Shapes: S sequences of a block, N rows of it (response tokens), F rows before the unusable ones are left out, M rows
with a full distribution, K observed ids, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..errors import EmptyComparisonError, MisalignedError, TraceError
from ..measures.full import EXACT
from ..records import EvidenceLevel
from ..traces.reader import Trace
from ..traces.schema import MASK, SEQUENCES, TOKENS
from . import token_differences
from .block import PIECE_BYTES, Block
from .compatibility import BESIDE, check_comparable, check_vocabularies, note_evidence
from .contradictions import Contradictions
from .counts import AlignmentCounts
from .cursors import ROW, Responses, SequenceCursor, TokenCursor, check_rows
from .full_states import FullStates
from .loss_mask import LossMasks
from .prompt_clusters import PromptClusters, PromptsOf
from .shift import ShiftTest

if TYPE_CHECKING:
    import pyarrow as pa

BLOCK_ROWS = 131072
_TOPK = ["topk_ids", "topk_logprobs"]


class _Matched(NamedTuple):
    """The same sequences of both traces; and of either trace all that it has there, and which of them these are."""

    mu: Responses
    pi: Responses
    chosen: tuple[tuple[Responses, np.ndarray], tuple[Responses, np.ndarray]]


class Alignment:
    """What two traces share, but for the rows that a loss mask leaves out: their own, or that of the trace `mask`.
    `counts` and `notes` (remarks for people) are whole once `blocks` has come to its end.

    `prompts` is a trace whose prompts the responses are to, by their ids, whatever the two traces have before them:
    the unit of every interval, where contexts were changed. Only the responses are then proved to be the same.

    Raises `EmptyComparisonError` when nothing is left to compare; `MisalignedError` when a matched sequence has
    other tokens on the two sides, another vocabulary, or log-probs that are shifted by one; `NotComparableError`
    when one side is raw and the other processed, or two loss masks differ; `TraceError` when a
    trace contradicts itself. What only the data show is raised by `blocks`.
    """

    def __init__(
        self, behavior: Trace, reference: Trace, *, mask: Trace | None = None, prompts: Trace | None = None
    ) -> None:
        self.behavior, self.reference, self._mask, self._prompts = behavior, reference, mask, prompts
        self._manifest_notes = check_comparable(behavior.manifest, reference.manifest)
        self.full = FullStates.of(behavior, reference)
        self.counts, self.notes = AlignmentCounts(), list(self._manifest_notes)

    @property
    def crossed(self) -> bool:
        """Whether π is read from its whole distributions at the ids that μ lists."""
        return self.full is not None and self.full.mu is None

    @property
    def beside(self) -> bool:
        """Whether π was seen beside μ, and has the exact figures of every state."""
        beside = self.reference.manifest.beside
        return beside is not None and beside == self.behavior.sha256

    @property
    def topk(self) -> bool:
        """Whether π was observed at μ's top-k ids: listed there, or read from its whole distribution."""
        listed = "topk_ids" in self.reference.token_columns
        return "topk_ids" in self.behavior.token_columns and (listed or self.crossed)

    def blocks(self, rows: int = BLOCK_ROWS) -> Iterator[Block]:
        """All aligned sequences in order, about so many rows at a time, or those of one longer sequence."""
        self.counts, self.notes = counts, notes = AlignmentCounts(), list(self._manifest_notes)
        shift, largest_id, one_sided = ShiftTest(), -1, 0
        prompts = PromptClusters() if self._prompts is None else PromptsOf(self._prompts)
        tokens_mu, tokens_pi = (
            TokenCursor(trace, ROW + [name for name in optional if name in trace.token_columns])
            for trace, optional in (
                (self.behavior, [*_TOPK, MASK]),
                (self.reference, [*_TOPK, "tail_overlap", MASK, *(EXACT if self.beside else ())]),
            )
        )
        masks, renumbered = LossMasks(self.behavior, self.reference, self._mask), False
        contradictions = Contradictions(self.behavior, self.reference, lists_are_measured=self.topk)
        matched = self._matched(rows)
        for mu, pi, chosen in matched:
            if not mu.same_tokens(pi, prompts=self._prompts is None):
                raise self._other_tokens(mu, pi, matched)
            renumbered = renumbered or not np.array_equal(mu.prompt_id_S, pi.prompt_id_S)
            counts.matched_sequences += len(mu.sequence_id_S)
            row_mu_F, batch_mu = _rows(tokens_mu, *chosen[0])
            row_pi_F, batch_pi = _rows(tokens_pi, *chosen[1])
            largest_id = max(largest_id, int(mu.response_F.max(initial=-1)))
            counted_F, usable_F = self._usable(mu, (batch_mu, batch_pi), masks, shift, notes)
            counted, usable = int(counted_F.sum()), int(usable_F.sum())
            counts.tokens += usable
            counts.rejected += counted - usable
            counts.masked += len(counted_F) - counted
            if not usable or masks.different:  # masks that differ are only counted on, for the error at the end
                continue
            rows_FF, batches = (row_mu_F, row_pi_F), (batch_mu, batch_pi)
            block = self._block(mu, prompts, counted_F, usable_F, rows_FF, batches)
            block = replace(block, _same_ids=contradictions.add(block._rows, block._batches))
            if contradictions.found:  # likewise
                continue
            if self.full is not None:
                one_sided += self.full.one_sided(*block._rows)
            counts.sequences += len(block.sequence_id_S)
            counts.partial_sequences += int((~block.whole_S).sum())
            yield block
        counts.prompts, counts.prompt_ids = prompts.prompts, prompts.ids
        masks.check()
        contradictions.check()
        self._finish(shift, renumbered, largest_id, one_sided)

    def _matched(self, rows: int) -> Iterator[_Matched]:
        """The sequences that both traces have, block by block."""
        counts = self.counts
        totals = [trace.manifest.counts for trace in (self.behavior, self.reference)]
        mean_rows = max(1, totals[0].tokens // max(1, totals[0].sequences))
        if k := max(trace.evidence.k for trace in (self.behavior, self.reference)):
            rows = min(rows, max(1, 2 * PIECE_BYTES // (2 * 12 * (k + 1))))
        left, right = (
            SequenceCursor(trace, max(1, rows // mean_rows)) for trace in (self.behavior, self.reference)
        )
        while (mu := left.next()) is not None:
            pi = right.until(int(mu.sequence_id_S[-1]))
            both_mu_S = np.isin(mu.sequence_id_S, pi.sequence_id_S, assume_unique=True)
            both_pi_S = np.isin(pi.sequence_id_S, mu.sequence_id_S, assume_unique=True)
            counts.unmatched_behavior += int((~both_mu_S).sum())
            counts.unmatched_reference += int((~both_pi_S).sum())
            yield _Matched(mu.only(both_mu_S), pi.only(both_pi_S), ((mu, both_mu_S), (pi, both_pi_S)))
        counts.unmatched_reference += len(right.until(np.iinfo(np.int64).max).sequence_id_S)
        for trace, cursor, total in zip((self.behavior, self.reference), (left, right), totals, strict=True):
            if cursor.rows_read != total.tokens:
                raise TraceError(
                    f"{trace.path}: {SEQUENCES} has {cursor.rows_read} response tokens, {TOKENS} {total.tokens}."
                )

    def _usable(
        self,
        mu: Responses,
        batches: tuple[pa.RecordBatch, pa.RecordBatch],
        masks: LossMasks,
        shift: ShiftTest,
        notes: list[str],
    ) -> tuple[np.ndarray, np.ndarray]:
        """Which rows the loss masks keep [F], and which of those have two log-probs that are numbers or -inf [F]; a
        note on the first that does not.

        Raises `TraceError` unless the rows are those that sequences.parquet promises.
        """
        sequence_id_F = np.repeat(mu.sequence_id_S, mu.length_S)
        position_F = np.arange(mu.rows) - np.repeat(mu.start_S, mu.length_S)
        sides = {}
        for name, trace, batch in (
            ("behaviour", self.behavior, batches[0]),
            ("reference", self.reference, batches[1]),
        ):
            check_rows(trace, batch, (sequence_id_F, position_F, mu.response_F))
            sides[name] = batch["logprob"].to_numpy(zero_copy_only=False)
        legal = {name: logp_F < np.inf for name, logp_F in sides.items()}  # NaN is not
        counted_F = masks.counted(mu, batches, position_F)
        if not counted_F.all():
            legal = {name: legal_F | ~counted_F for name, legal_F in legal.items()}
            sides = {name: np.where(counted_F, logp_F, np.nan) for name, logp_F in sides.items()}
        shift.add(sequence_id_F, *sides.values())
        for name, legal_F in legal.items():
            if not legal_F.all() and not any(note.startswith("Rows without") for note in notes):
                at = int(np.argmin(legal_F))
                notes.append(
                    f"Rows without a legal log-prob were rejected; the first is position {position_F[at]} of "
                    f"sequence {sequence_id_F[at]}, where the {name}'s is {sides[name][at]}."
                )
        return counted_F, legal["behaviour"] & legal["reference"] & counted_F

    def _block(
        self,
        mu: Responses,
        prompts: PromptClusters,
        counted_F: np.ndarray,
        usable_F: np.ndarray,
        rows: tuple[np.ndarray, np.ndarray],
        batches: tuple[pa.RecordBatch, pa.RecordBatch],
    ) -> Block:
        import pyarrow as pa

        length_S = counted_S = mu.length_S
        if not usable_F.all():
            sequence_F = np.repeat(np.arange(len(mu.length_S)), mu.length_S)
            length_S, counted_S = (
                np.bincount(sequence_F[chosen_F], minlength=len(mu.length_S)) for chosen_F in (usable_F, counted_F)
            )
            usable = pa.array(usable_F)
            rows = rows[0][usable_F], rows[1][usable_F]
            batches = batches[0].filter(usable), batches[1].filter(usable)
        kept_S = length_S > 0
        kept = mu.only(kept_S)
        batch_mu, batch_pi = batches
        return Block(
            sequence_id_S=kept.sequence_id_S,
            prompt_id_S=kept.prompt_id_S,
            cluster_S=prompts.labels(kept),
            whole_S=length_S[kept_S] == counted_S[kept_S],
            length_S=length_S[kept_S],
            position_N=batch_mu["position"].to_numpy().astype(np.int64),
            token_id_N=batch_mu["token_id"].to_numpy(),
            logp_mu_N=batch_mu["logprob"].to_numpy(),
            logp_pi_N=batch_pi["logprob"].to_numpy(),
            _rows=rows,
            _batches=batches,
            _alignment=self,
        )

    def _other_tokens(self, mu: Responses, pi: Responses, rest: Iterator[_Matched]) -> MisalignedError:
        """The error for sequences that differ between the two sides: the first of them, and how many there are."""
        first, message, different, sequences = None, "", 0, self.counts.matched_sequences
        while True:
            sequences += len(mu.sequence_id_S)
            for at in range(len(mu.sequence_id_S)):
                if all(np.array_equal(*pair) for pair in zip(mu.tokens(at), pi.tokens(at), strict=True)):
                    continue
                different += 1
                if first is None:
                    what, first = token_differences.describe(*mu.tokens(at), *pi.tokens(at))
                    message = f"Sequence {mu.sequence_id_S[at]} is not the same on both sides: {what}. "
            following = next(rest, None)
            if following is None:
                return MisalignedError(f"{message}Sequences that differ: {different} of {sequences}.", hint=first)
            mu, pi, _ = following

    def _finish(self, shift: ShiftTest, renumbered: bool, largest_id: int, one_sided: int) -> None:
        """What can be said of all rows together: the last errors, and the notes."""
        counts, mu, pi = self.counts, self.behavior, self.reference
        if not counts.matched_sequences:
            raise EmptyComparisonError(
                f"{mu.path} ({mu.manifest.counts.sequences} sequences) and {pi.path} "
                f"({pi.manifest.counts.sequences} sequences) have no sequence in common.",
                hint=f"mismatchscope score {mu.path} … scores the tokens of this behaviour trace",
            )
        shift.check()
        if not counts.tokens:
            raise EmptyComparisonError(
                f"The sequences in common ({counts.matched_sequences}) leave no token to compare.",
                hint="the responses are empty, a mask leaves all of them out, or no log-prob is a number",
            )
        if renumbered:
            self.notes.append(
                "The two sides number their prompts differently; the behaviour's prompt ids are used."
            )
        padding_mass = self.full.padding_mass if self.full is not None else None
        self.notes += check_vocabularies(mu, pi, largest_id=largest_id, padding_mass=padding_mass)
        if self.beside:
            self.notes.append(BESIDE)
        elif not self.crossed:
            in_part: EvidenceLevel = "topk" if self.topk else "sampled"
            common = in_part if self.full is None else "full"
            self.notes += note_evidence(mu.evidence.level, pi.evidence.level, common)
        if one_sided:
            self.notes.append(f"States with a distribution on one side only: {one_sided}. They have less evidence.")


def _rows(tokens: TokenCursor, all_there: Responses, chosen_S: np.ndarray) -> tuple[np.ndarray, pa.RecordBatch]:
    """The rows of the chosen ones among the next sequences: their numbers in the file, and their columns."""
    import pyarrow as pa

    first = tokens.row
    batch, row_F = tokens.take(all_there.rows), np.arange(first, first + all_there.rows)
    if chosen_S.all():
        return row_F, batch
    chosen_F = np.repeat(chosen_S, all_there.length_S)
    return row_F[chosen_F], batch.filter(pa.array(chosen_F))
