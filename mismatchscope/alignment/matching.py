"""Two traces of the same tokens: find what they share, and prove that it is the same.

μ is the behaviour trace, π the reference. Everything that would make a comparison mean something else is an error
here; what is merely worth knowing is a note.

Shapes: S sequences, N rows of tokens.parquet, or of those that both traces have.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..errors import EmptyComparisonError, MisalignedError, TraceError
from ..traces.reader import Trace
from ..traces.schema import SEQUENCES, TOKENS
from . import token_differences as mismatch
from .aligned import MAX_ROWS, AlignedChunk, Alignment, AlignmentCounts, in_step
from .compatibility import check_comparable, check_vocabularies
from .full_states import FullStates
from .responses import Responses
from .shift import ShiftTest

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["AlignedChunk", "Alignment", "AlignmentCounts", "align"]

_ROW = ["sequence_id", "position", "token_id", "logprob"]
_LEVELS = ("sampled", "topk", "full")


def align(behavior: Trace, reference: Trace) -> Alignment:
    """Match two traces by `sequence_id` and check every token of the sequences that both have.

    Raises `EmptyComparisonError` when nothing is left to compare; `MisalignedError` when a matched sequence has
    other tokens on the two sides, another vocabulary, or log-probs that are shifted by one; `NotComparableError`
    when one side is raw and the other processed; `TraceError` when a trace contradicts itself.
    """
    notes = check_comparable(behavior.manifest, reference.manifest)
    mu, pi = Responses.of(behavior), Responses.of(reference)
    _, mu_S, pi_S = np.intersect1d(mu.sequence_id_S, pi.sequence_id_S, assume_unique=True, return_indices=True)
    if not len(mu_S):
        raise EmptyComparisonError(
            f"{behavior.path} ({len(mu.sequence_id_S)} sequences) and {reference.path} "
            f"({len(pi.sequence_id_S)} sequences) have no sequence in common.",
            hint=f"mismatchscope score {behavior.path} … scores the tokens of this behaviour trace",
        )
    matched = mu.take(mu_S)
    notes += _check_same_tokens(matched, pi.take(pi_S))
    kept_mu_N, kept_pi_N = mu.rows_of(mu_S), pi.rows_of(pi_S)
    usable_N, scan_notes = _scan(behavior, reference, (kept_mu_N, kept_pi_N), matched)
    if not usable_N.any():
        raise EmptyComparisonError(
            f"The {len(mu_S)} sequences in common leave no token to compare.",
            hint="the responses are empty, or no log-prob is a number",
        )
    kept_mu_N[kept_mu_N], kept_pi_N[kept_pi_N] = usable_N, usable_N
    full = FullStates.of(behavior, reference, kept_mu_N, kept_pi_N)
    padding_mass = full.padding_mass if full is not None else None
    largest_id = int(matched.response_F.max())
    notes += check_vocabularies(behavior, reference, largest_id=largest_id, padding_mass=padding_mass)
    alignment = Alignment(
        behavior=behavior,
        reference=reference,
        counts=AlignmentCounts(
            prompts=len(np.unique(matched.prompt_id_S)),
            sequences=len(mu_S),
            tokens=int(usable_N.sum()),
            full_states=len(full.pi.row_M) if full is not None and full.mu is not None else 0,
            unmatched_behavior=len(mu.sequence_id_S) - len(mu_S),
            unmatched_reference=len(pi.sequence_id_S) - len(pi_S),
            rejected=int((~usable_N).sum()),
        ),
        notes=notes + scan_notes,
        prompt_of=(matched.sequence_id_S, matched.prompt_id_S),
        kept=(kept_mu_N, kept_pi_N),
        full=full,
    )
    alignment.notes.extend(_evidence_notes(alignment))
    return alignment


def _check_same_tokens(mu: Responses, pi: Responses) -> list[str]:
    """Raise `MisalignedError` unless two sets of sequences have the same prompts and responses."""
    columns = ("prompt_length_S", "prompt_P", "length_S", "response_F")
    if all(np.array_equal(getattr(mu, name), getattr(pi, name)) for name in columns):
        if np.array_equal(mu.prompt_id_S, pi.prompt_id_S):
            return []
        return ["The two sides number their prompts differently; the behaviour's prompt ids are used."]
    different = [
        at
        for at in range(len(mu.sequence_id_S))
        if not all(np.array_equal(*pair) for pair in zip(mu.tokens(at), pi.tokens(at), strict=True))
    ]
    first = different[0]
    what, hint = mismatch.describe(*mu.tokens(first), *pi.tokens(first))
    raise MisalignedError(
        f"Sequence {mu.sequence_id_S[first]} is not the same on both sides: {what}. "
        f"{len(different)} of {len(mu.sequence_id_S)} sequences differ.",
        hint=hint,
    )


def _scan(
    behavior: Trace, reference: Trace, kept: tuple[np.ndarray, np.ndarray], matched: Responses
) -> tuple[np.ndarray, list[str]]:
    """One pass over the matched rows of both sides: are they the rows that sequences.parquet promises?

    Returns which of them have two log-probs that are numbers or -inf, and a note on the first that does not.
    Raises `TraceError`, and `MisalignedError` for log-probs that fit better when moved by one token.
    """
    usable, notes = [], []
    shift = ShiftTest()
    start = 0
    for mu, pi in in_step(behavior, reference, kept, _ROW, _ROW, MAX_ROWS):
        stop = start + mu.num_rows
        sequence_id_N, position_N = matched.locate(start, stop)
        expected = (sequence_id_N, position_N, matched.response_F[start:stop])
        sides = {}
        for name, trace, batch in (("behaviour", behavior, mu), ("reference", reference, pi)):
            _check_rows(trace, batch, expected)
            sides[name] = batch["logprob"].to_numpy(zero_copy_only=False)
        legal = {name: logp_N < np.inf for name, logp_N in sides.items()}  # NaN is not
        usable.append(legal["behaviour"] & legal["reference"])
        shift.add(sequence_id_N, *sides.values())
        for name, legal_N in legal.items():
            if not notes and not legal_N.all():
                at = int(np.argmin(legal_N))
                notes.append(
                    f"Rows without a legal log-prob were rejected; the first is position {position_N[at]} of "
                    f"sequence {sequence_id_N[at]}, where the {name}'s is {sides[name][at]}."
                )
        start = stop
    if shift.shift:
        scores = shift.mean_abs_dlogp
        raise MisalignedError(
            f"The log-probs are shifted by one token: mean |Δ log p| is {scores[0]:.3g} where token ids agree, but "
            f"{scores[shift.shift]:.3g} when the reference's are read {shift.shift:+d} token further "
            f"({shift.tokens} tokens).",
            hint="log p of token t comes from the logits at t − 1; one side is off by one",
        )
    return np.concatenate(usable) if usable else np.zeros(0, dtype=bool), notes


def _check_rows(trace: Trace, batch: pa.RecordBatch, expected: tuple[np.ndarray, ...]) -> None:
    for name, expected_N in zip(_ROW, expected, strict=False):
        found_N = batch[name].to_numpy()
        if not np.array_equal(found_N, expected_N):
            at = int(np.argmax(found_N != expected_N))
            raise TraceError(
                f"{trace.path}: {TOKENS} and {SEQUENCES} disagree at position {expected[1][at]} of sequence "
                f"{expected[0][at]}: {name} is {found_N[at]} and {expected_N[at]}.",
                hint="write the trace again",
            )


def _evidence_notes(alignment: Alignment) -> list[str]:
    """What one side observed in vain."""
    full = alignment.full
    compared = "full" if alignment.counts.full_states else "topk" if alignment.topk else "sampled"
    levels = [trace.evidence.level for trace in (alignment.behavior, alignment.reference)]
    notes = []
    if max(map(_LEVELS.index, levels)) > _LEVELS.index(compared) and not (full is not None and full.mu is None):
        notes.append(
            f"The behaviour trace has {levels[0]} evidence, the reference {levels[1]}; both have {compared} alone."
        )
    if full is not None and full.one_sided:
        notes.append(f"{full.one_sided} distributions exist on one side only; those states have less evidence.")
    return notes
