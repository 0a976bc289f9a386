"""What the usual off-policy corrections would keep of this sample; α₁ stays what it is."""

from __future__ import annotations

import math
from dataclasses import asdict

from ..measures import corrections as rules
from ..reports.document import Correction
from .states import StateMeasures


def correction_rows(measures: StateMeasures) -> list[Correction]:
    """One row a rule at its usual threshold; rules that need each state's KL only where it is known."""
    whole = measures.exact_N.all()
    sample = rules.RatioSample(
        measures.sampled.log_ratio,
        measures.offsets_S1,
        tv_T=measures.columns["tv"] if whole else None,
        kl_T=measures.columns["kl"] if whole else None,
    )
    return [_row(found) for found in rules.corrections(sample)]


def _row(found: rules.Correction) -> Correction:
    fields = {name: value for name, value in asdict(found).items() if name in Correction.model_fields}
    # Nothing was kept: there is no mean over nothing.
    return Correction(**{k: None if isinstance(v, float) and math.isnan(v) else v for k, v in fields.items()})
