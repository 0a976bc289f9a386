"""`ms.compare` and what reads and measures beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..config import load_settings
from ..errors import UsageError
from ..records import Policy
from ..reports.document import Report
from ..traces.reader import Trace
from .calls import call_text

if TYPE_CHECKING:
    import torch
    from numpy.typing import ArrayLike

    from ..measures.full import Divergences


def compare(
    behavior: str | Path | Trace,
    reference: str | Path | Trace,
    *,
    target: str | Path | Trace | None = None,
    baseline: str | Path | Trace | None = None,
    behavior_repeat: str | Path | Trace | None = None,
    reference_repeat: str | Path | Trace | None = None,
    policy: Policy | None = None,
    confidence: float | None = None,
    margin: float | None = None,
    max_rejected: float | None = None,
    tail: bool | None = None,
    fail_on: str | Sequence[str] = (),
) -> Report:
    """Measure two traces of the same tokens. This is `mismatchscope compare`; it needs no engine and no torch.

    Args:
        behavior: μ, the policy that sampled.
        reference: π_old, the policy that trains.
        target: π_θ, the policy being optimised; adds α₀ = TV(π_old, π_θ) and β = TV(μ, π_θ).
        baseline: another engine that scored μ's tokens: is μ closer to the trainer than that one?
        behavior_repeat, reference_repeat: the same side once more, which gives its repeat floor.
        policy: the behaviour trace's own by default; "support" renormalises π on the tokens that μ kept.
        confidence: of every interval.
        margin: an excess over the repeat floor below so many floors counts as none; 0.5 by default.
        max_rejected: the share of rows without a legal log-prob above which `verdict` is "inconclusive".
        fail_on: gates, as in "token.tv.p99 > 0.05"; the report's `verdict` is theirs.

    Raises:
        NotComparableError: other tokens on the two sides, log-probs shifted by one, nothing in common.
        TraceError: a trace that is missing, incomplete or altered.
        ConfigError: a gate or a setting that cannot be used.
    """
    fail_on = [fail_on] if isinstance(fail_on, str) else list(fail_on)
    given = dict(locals())
    from .. import gate
    from ..comparison.compare_traces import Repeats
    from ..comparison.compare_traces import compare as compare_traces

    def optional(trace: str | Path | Trace | None) -> Trace | None:
        return None if trace is None else _opened(trace)

    overrides = {"confidence": confidence, "margin": margin, "max_rejected": max_rejected, "tail": tail}
    settings = load_settings(None, overrides | {"gate.fail_on": fail_on}, [])
    gate.check_without_baseline(fail_on)
    report = compare_traces(
        _opened(behavior),
        _opened(reference),
        target=optional(target),
        baseline=optional(baseline),
        repeats=Repeats(optional(behavior_repeat), optional(reference_repeat)),
        policy=policy,
        confidence=settings.confidence,
        margin=settings.margin,
        tail=settings.tail,
        max_rejected=settings.max_rejected,
        command=call_text("compare", given),
    )
    return gate.apply(report, fail_on) if fail_on else report


def open_trace(path: str | Path, *, verify: bool = True) -> Trace:
    """Open a complete trace: `sequences()` and `tokens()` are its tables, `manifest` says how it was made.

    `verify` compares the checksum of every file.

    Raises `TraceError` for a trace that is missing, incomplete, altered or of another schema version.
    """
    return Trace.open(Path(path), verify=verify)


def load_report(path: str | Path) -> Report:
    """Read report.json, or the one in a directory. Raises `TraceError` when there is none that can be read."""
    return Report.load(Path(path))


def divergences(
    mu_NV: ArrayLike | torch.Tensor,
    pi_NV: ArrayLike | torch.Tensor,
    token_id_N: ArrayLike | torch.Tensor | None = None,
    *,
    normalised: bool = False,
    mass_floor: float = 1e-4,
    threads: int | None = None,
) -> Divergences:
    """TV, KL, χ², JS and more of behaviour μ and reference π at each of N states, float64 [N].

    Args:
        mu_NV, pi_NV: blocks of logits or natural log-probs, [N, V]: lists, numpy, or torch on a CPU or a GPU, both
            on the same device. float32 and bfloat16 are measured where they lie.
        token_id_N: the sampled tokens, whose `log_ratio` is asked for.
        normalised: the rows are log-probs that somebody stored: they are taken as they are and must sum to one.
        mass_floor: the probability from which on an id counts for `max_abs_dlogp`.
        threads: by default the cores that this process may use.

    Raises:
        UsageError: values that are no floats, shapes or devices that differ, a token id outside the vocabulary, a
            row that is no distribution. The row is named.
        EmptyComparisonError: no states, or no ids.
        MissingDependencyError: the blocks are on a GPU and Triton is not installed.
    """
    from ..measures import full

    try:
        return full.divergences(
            mu_NV, pi_NV, token_id_N, normalised=normalised, mass_floor=mass_floor, threads=threads
        )
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"The blocks cannot be measured: {error}.", hint="give logits or log-probs [states, vocabulary], floats"
        ) from error


def _opened(trace: str | Path | Trace) -> Trace:
    return trace if isinstance(trace, Trace) else Trace.open(Path(trace))
