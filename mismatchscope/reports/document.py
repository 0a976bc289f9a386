"""The report as one frozen document. Renderers and the gate read it and see nothing else.

`report.json` is its dump. A field that was not or cannot be measured is None, never 0. Infinities are legal
(KL under a support leak) and are written as the strings "Infinity" and "-Infinity", so that the file stays JSON.
Definitions of every figure: docs/measures.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from ..errors import TraceError
from ..foreign_text import printable_json
from ..input_files import json_bytes
from ..measures.correction_results import Correction, CorrectionAudit, CorrectionSeries, CorrectionSweep
from ..measures.diagnosis_results import DiagnosedCause, DiagnosisAnswer
from ..measures.log_results import (
    DistributionCheck,
    Groups,
    KeptSupport,
    LengthScaling,
    LogFacts,
    LoggedSequence,
    NativeMetric,
    PromptEffect,
    StaleCache,
    Staleness,
    Trends,
)
from ..measures.results import Alpha, Bounds, Interval, SequenceMeasures, TokenMeasures
from .chart_fields import ChartData
from .confirmation_fields import Confirmation
from .difference_fields import Difference, RoundingSize
from .pair_fields import PairSummary, Probe
from .prompt_sums import PromptSums, load_beside, report_file, sums_file
from .reading_fields import EvidenceChoice, Reading
from .sound_figures import check_figures
from .unreadable import why_not_read
from .worst_fields import WorstToken

if TYPE_CHECKING:
    import pandas as pd

SCHEMA_VERSION: Final = 2

Verdict = Literal["pass", "fail", "inconclusive", "none"]
EvidenceLevel = Literal["sampled", "topk", "full"]
Policy = Literal["raw", "processed", "support"]


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


class Counts(Frozen):
    prompts: int = Field(description="distinct by their tokens: the clusters of every interval")
    prompt_ids: int | None = Field(None, description="as the trace numbers them")
    sequences: int = Field(description="with a row that was compared")
    tokens: int = Field(description="rows that were compared")
    full_states: int = 0
    matched_sequences: int | None = Field(None, description="that both sides have, whatever became of their rows")
    partial_sequences: int = Field(
        0, description="of `sequences`: they lost a row to rejection and are in no sequence figure"
    )
    unmatched_behavior: int = 0
    unmatched_reference: int = 0
    masked: int = Field(0, description="rows that a loss mask leaves out: neither compared nor rejected")
    rejected: int = Field(0, description="rows with a NaN or +inf log-prob on a side")
    rejected_responses: int = Field(0, description="rows of a log that are left out whole: `log.rejected` says why")
    max_rejected: float | None = Field(None, description="the share of rejected rows above which nothing passes")

    @property
    def too_many_rejected(self) -> bool:
        """Whether so much is missing that what is left may not be what was sampled: of rows, or of responses."""
        lost = ((self.rejected, self.tokens), (self.rejected_responses, self.sequences))
        most = self.max_rejected
        return most is not None and any(gone > most * (left + gone) for gone, left in lost)


class Floor(Frozen):
    """Repeat noise: one side measured against itself. `composition` says what was changed between the two runs,
    null where the traces do not say."""

    observed_max: float | None
    mean: Interval
    kl: float | None = None
    identical: bool = Field(description="every log-prob of the two runs has the same bits")
    composition: Literal["same", "reshuffled"] | None = None


class Floors(Frozen):
    """`excess` is the prompt-paired difference of the mean TV and the larger floor; None where no floor was run."""

    behavior: Floor | None = None
    reference: Floor | None = None
    excess: Interval | None = None


NO_DIAGNOSIS = "no_diagnosis"
"""The code of the alarm that the diagnosis failed."""


class Alarm(Frozen):
    """Something that makes the figures mean less, or something else, than they seem to; with what to do."""

    code: str
    message: str
    evidence: dict[str, Any] = {}
    remedy: str | None = None
    severity: Literal["warning", "error"] = "warning"


class GateResult(Frozen):
    expression: str
    value: float | None
    low: float | None = None
    high: float | None = None
    verdict: Literal["pass", "fail", "inconclusive"]
    reason: str | None = None


class Finding(Frozen):
    """What was found, gate or no gate. `sentence` is the line a person reads first."""

    code: Literal[
        "identical",
        "within_floor",
        "above_floor",
        "unresolved",
        "no_floor",
        "probe",
        "log",
        "log_in_doubt",
        "log_moved",
    ]
    sentence: str
    margin: float | None = Field(
        None, description="of mean TV: an excess over the repeat floor below it counts as none"
    )
    prompts_needed: int | None = Field(
        None, description="of an unresolved finding: with so many prompts it would likely be above or within"
    )


class BaselineComparison(Frozen):
    """The engine under audit (new) against another one (old), both held against the same trainer.

    The differences are new less old, paired by state, so that what both have in common cancels: negative is closer
    to the trainer. `difference` lists what the provenance of the two engines has apart.
    """

    verdict: Literal["unchanged", "changed", "better", "worse", "inconclusive"]
    sentence: str
    old_reference: PairSummary
    new_old: PairSummary
    change: Interval | None = Field(
        None, description="mean TV between new and old less the new engine's repeat floor, paired by prompt"
    )
    margin: float | None = Field(None, description="of mean TV: a change below it counts as none")
    prompts_needed: int | None = Field(
        None, description="of an inconclusive verdict: with so many prompts it would likely be told"
    )
    tv_difference: Interval | None = None
    kl_difference: Interval | None = None
    abs_logprob_difference: Interval
    provenance: dict[str, Any]
    difference: list[Difference] = []
    size: RoundingSize | None = Field(None, description="of new against old")


class Provenance(Frozen):
    behavior: dict[str, Any]
    reference: dict[str, Any]
    target: dict[str, Any] | None = None
    difference: list[Difference] = []
    size: RoundingSize | None = Field(
        None, description="what decides whether rounding can explain the mismatch; None where too few tokens say so"
    )
    machine: dict[str, Any] = Field({}, description="where the comparison ran: the facts that `doctor` prints")
    command: str
    duration_s: float | None = None
    created: str | None = None
    tool_version: str | None = None


class Report(Frozen):
    schema_version: Literal[2] = SCHEMA_VERSION
    verdict: Verdict = "none"
    finding: Finding
    reading: Reading = Reading()
    evidence: EvidenceLevel
    evidence_choice: EvidenceChoice | None = Field(None, description="None where the traces came from elsewhere")
    policy: Policy
    counts: Counts
    alpha1: Alpha
    alpha0: Alpha | None = None
    beta: Alpha | None = None
    token: TokenMeasures
    sequence: SequenceMeasures
    floor: Floors = Floors()
    baseline: BaselineComparison | None = None
    truncation_floor: float | None = Field(
        None, description="1 − kept mass of top-p/top-k: the mean TV that perfect numerics would still show"
    )
    rounding_floor: float | None = Field(
        None, description="TV that rounding of the logits to their dtype can cause"
    )
    corrections: list[Correction] = []
    bounds: Bounds | None = None
    diagnosis: list[DiagnosedCause] = []
    diagnosis_answer: DiagnosisAnswer | None = None
    confirmation: Confirmation | None = Field(None, description="the experiments that `diagnose --confirm` ran")
    alarms: list[Alarm] = []
    gates: list[GateResult] = []
    worst: list[WorstToken] = []
    figures: ChartData = ChartData()
    probe: Probe | None = Field(None, description="the figures above are then of the pair farthest apart in it")
    log: LogFacts | None = Field(None, description="this and what follows is of logs alone")
    distribution: list[DistributionCheck] = []
    kept_support: KeptSupport | None = None
    trend: Trends | None = None
    groups: list[Groups] = []
    staleness: Staleness | None = None
    stale_cache: StaleCache | None = None
    prompt_effect: PromptEffect | None = None
    length_scaling: LengthScaling | None = None
    correction_sweeps: list[CorrectionSweep] = []
    correction_series: list[CorrectionSeries] = []
    correction_audit: list[CorrectionAudit] = []
    native_metrics: list[NativeMetric] = []
    sequences: list[LoggedSequence] = []
    provenance: Provenance
    _prompt_sums: PromptSums | None = PrivateAttr(None)

    @property
    def prompt_sums(self) -> PromptSums | None:
        """What each prompt adds to the means, kept in a file beside report.json; None where that is not known."""
        return self._prompt_sums

    def with_prompt_sums(self, sums: PromptSums | None) -> Report:
        """The same report with these sums beside it."""
        copy = self.model_copy()
        copy._prompt_sums = sums
        return copy

    def files(self, file: Path) -> dict[Path, str]:
        """The text of each file that keeps the report: `file` is report.json, the other its sums by prompt."""
        sums = {} if self.prompt_sums is None else {sums_file(file): self.prompt_sums.to_json()}
        return {file: self.to_json()} | sums

    def to_json(self) -> str:
        return printable_json(self.model_dump_json(indent=1)) + "\n"

    def to_frame(self) -> pd.DataFrame:
        """Every figure in a pandas frame, one a row, with its interval."""
        from .frames import report_frame

        return report_frame(self)

    @classmethod
    def load(cls, path: Path) -> Report:
        """Read report.json (or a directory that holds one). Raises `TraceError` when it is none."""
        file = report_file(path)
        try:
            report = cls.model_validate_json(json_bytes(file, limit=2**28))
            check_figures(report)
        except FileNotFoundError:
            raise TraceError(
                f"{file} does not exist.", hint="mismatchscope compare TRACE_MU TRACE_PI -o DIR writes one"
            ) from None
        except (OSError, ValueError) as error:
            raise TraceError(
                f"{file} is not a report that this version reads: {why_not_read(error, SCHEMA_VERSION)}.",
                hint="write it again with this version: mismatchscope compare TRACE_MU TRACE_PI -o DIR",
            ) from None
        return report.with_prompt_sums(load_beside(file))
