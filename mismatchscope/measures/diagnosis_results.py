"""What a diagnosis says: frozen values that a report holds as they are."""

from __future__ import annotations

from typing import Literal

from .results import Interval, result


@result
class DetectorRecord:
    """How often the detector was right in the planted cases of benchmarks/causes, at this level of evidence."""

    right: int
    cases: int
    precision: Interval


@result
class DiagnosisEvidence:
    """One statistic that speaks for a cause, and what it is without the fault."""

    statistic: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    null: float | None
    false_alarm: float | None
    """Chance of a value as far off without a fault; None where it is not known."""


@result
class DiagnosedCause:
    """A cause that fits, most likely first. Those of one finding cannot be told apart by this evidence."""

    cause: str
    """A row of the catalogue of causes, "ordinary_rounding", or "unknown": not rounding, and not named."""
    title: str
    confidence: DetectorRecord | None
    """None where there is no record, never a guess."""
    evidence: tuple[DiagnosisEvidence, ...]
    scope: str | None
    """Which sequences, tokens, layers or workers; None where that is not known."""
    sequences: tuple[int, ...]
    """Those that it is about, by number, where they are not all; at most a thousand."""
    confirm: str | None
    """The experiment that would prove it."""
    fix: str | None
    finding: int
    """Causes of one finding have one number."""
    alternatives: int
    """How many causes this finding leaves; 1 where it names one."""
    detector: str | None
    why: str
    """What was measured, and what it is without the fault."""
    explained: float | None
    """Share of Σ|Δ log p| that is of the tokens of this finding."""
    docs: str | None = None
    """The page of the documentation about it."""


@result
class DiagnosisPicture:
    """Points of the plot in which one sees it. `labels` name x where it counts groups; `marks` are places on x."""

    kind: Literal["positions", "log_odds", "sequences", "groups", "values"]
    finding: int
    x_label: str
    y_label: str
    series: tuple[tuple[str, tuple[float | None, ...], tuple[float | None, ...]], ...]
    labels: tuple[str, ...] = ()
    marks: tuple[tuple[str, float], ...] = ()
    floor: float | None = None


@result
class DiagnosisAnswer:
    """The answer in three lines, and what it rests on."""

    code: Literal["cause", "set", "ordinary_rounding", "unknown", "cannot_tell", "identical"]
    what: str
    why: str
    next: str
    size: Interval
    """R: the root mean square of Δ log p / (1 − p) over tokens with p < 0.9, in floors."""
    left: Interval | None
    """R of what no finding explains; None where it was not or could not be measured."""
    floor: float
    """Root mean square of Δ log p / (1 − p) that rounding makes."""
    floor_source: Literal["repeat", "third party", "prior", "quiet part"]
    level: Literal["sampled", "top-k", "full"]
    tokens: int
    """That were looked at."""
    tokens_seen: int
    """Of which they are a sample of whole sequences."""
    sequences: int
    facts: tuple[str, ...] = ()
    """What is true and no fault."""
    doubted: tuple[str, ...] = ()
    """What detectors saw that are too often wrong to name a cause by it."""
    not_asked: tuple[str, ...] = ()
    """What was not looked for, or less surely, and what that needs."""
    pictures: tuple[DiagnosisPicture, ...] = ()
