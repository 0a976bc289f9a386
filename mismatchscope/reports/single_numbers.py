"""The figures that are one number each, as every format shows them."""

from __future__ import annotations

from ..measures.results import SequenceMeasures, TokenMeasures
from .glossary import MEAN_WEIGHT, SCALARS, UNTRUSTED, Measure
from .text import estimate, number


def scalars(values: TokenMeasures | SequenceMeasures) -> list[tuple[Measure, str]]:
    """The figures that are one number each, with no distribution, as text; beside ESS and χ² what they rest on."""
    # chi2 is a distribution over tokens and one number over sequences.
    known = [m for m in SCALARS if isinstance(getattr(values, m.key, None), float)]
    found = [(m, number(getattr(values, m.key))) for m in known]
    if isinstance(values, TokenMeasures):
        return found
    found = [(m, _of_weights(values, m.key, text)) for m, text in found]
    if found and values.ratio is not None:
        found.insert(0, (MEAN_WEIGHT, number(values.ratio.mean)))
    if found and values.weights_reason:
        found.append((UNTRUSTED, values.weights_reason))
    return found


def _of_weights(sequence: SequenceMeasures, key: str, text: str) -> str:
    if key == "ess_fraction":
        return estimate(sequence.ess_fraction, sequence.ess_fraction_low, sequence.ess_fraction_high)
    return f"{text} (limit {number(sequence.pareto_k_limit)})" if key == "pareto_k" else text
