"""What rounding alone can do: the TV that storing the logits in their dtype may cause on the two sides together."""

from __future__ import annotations

import math

from ..measures.rounding import rounding_floor_tv
from ..traces.reader import Trace


def rounding_floor(behavior: Trace, reference: Trace) -> float | None:
    """Upper bound of the TV from half an ulp of error in every logit, of both sides; None where one is unknown.

    An error of at most e in each logit gives TV ≤ tanh(e/2), and the errors of the two sides add up. Sequences
    carry their largest |logit|, and the manifest the dtype of the logits.
    """
    mu, pi = _of_one_side(behavior), _of_one_side(reference)
    return None if mu is None or pi is None else math.tanh(math.atanh(mu) + math.atanh(pi))


def _of_one_side(trace: Trace) -> float | None:
    import pyarrow as pa
    import pyarrow.compute as pc

    effective = trace.manifest.effective
    dtype = effective.get("logits_dtype") or effective.get("lm_head")
    table = trace.read_sequences(["max_abs_logit"])
    # The column is younger than the format. A sequence that does not know may have had the largest one.
    if dtype not in ("bfloat16", "float16", "float32") or "max_abs_logit" not in table.column_names:
        return None
    column = table["max_abs_logit"]
    known = column.null_count == 0 and not pc.any(pc.is_nan(column.cast(pa.float64()))).as_py()
    largest = pc.max(column).as_py() if known else None
    return rounding_floor_tv(largest, dtype) if largest is not None and math.isfinite(largest) else None
