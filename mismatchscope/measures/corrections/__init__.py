"""What published off-policy corrections keep, what they cost, and what mismatch remains on what they keep.

A correction decides which samples train and with which weight. It does not move mu or pi, so alpha_1 stays what it
was; figures of what a rule keeps are named so. Every band is on the ratio itself, never on its negative logarithm,
where the two bounds would swap.
"""

from .accumulator import Corrections
from .block import RatioBlock
from .catalogue import USUAL
from .effect import RuleSums

__all__ = ["USUAL", "Corrections", "RatioBlock", "RuleSums"]
