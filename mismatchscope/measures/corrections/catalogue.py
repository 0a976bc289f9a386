"""Every published rule: its formula, where it is from, what it weights and what it needs.

In the formulas rho is pi_old / mu of a token, rho(y) of a whole response of T tokens, r is pi_theta / pi_old, A the
advantage, w the weight. What is not kept has weight 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from . import mismatch_rules as mismatch
from . import policy_rules as policy
from .effect import Effect, Unit

Need = Literal["state_kl", "target", "advantages", "logprobs"]

NEEDS: dict[Need, str] = {
    "state_kl": "the KL of every state, which full distributions give and sampled tokens do not",
    "target": "log-probs of π_θ",
    "advantages": "advantages",
    "logprobs": "log-probs of μ",
}


@dataclass(frozen=True)
class Rule:
    """`usual` are the thresholds in use; a rule's parameters are those of its first one and `optional`."""

    apply: Callable[..., Effect]
    unit: Unit
    formula: str
    source: str
    usual: tuple[dict[str, float], ...]
    needs: tuple[Need, ...] = ()
    optional: tuple[str, ...] = ()
    instead: str | None = None
    """What stands in for pi_theta where the log lacks it; None where the rule does not look at it."""

    @property
    def name(self) -> str:
        return self.apply.__name__

    @property
    def parameters(self) -> tuple[str, ...]:
        return (*self.usual[0], *self.optional)

    def missing(self, known: frozenset[str]) -> list[Need]:
        return [need for need in self.needs if need not in known]

    def remark(self, known: frozenset[str]) -> str | None:
        return self.instead if "target" not in known else None


_BEFORE_UPDATES = "π_old stands in for π_θ: what the first update of a batch would do"

_RULES = (
    Rule(
        mismatch.token_tis,
        "token",
        "w = min(ρ, cap), at least low",
        "Your efficient RL framework secretly brings you off-policy RL training (2025)",
        ({"cap": 2.0},),
        optional=("low",),
    ),
    Rule(
        mismatch.icepop,
        "token",
        "w = ρ while low ≤ ρ ≤ high",
        "Small leak can sink a great ship (2025)",
        ({"low": 0.5, "high": 5.0},),
    ),
    Rule(
        mismatch.sequence_tis,
        "sequence",
        "w = min(ρ(y), cap)",
        "When speed kills stability (2025); verl, SkyRL",
        ({"cap": 2.0}, {"cap": 10.0}),
    ),
    Rule(
        mismatch.sequence_mis,
        "sequence",
        "w = ρ(y) while low ≤ ρ(y) ≤ cap",
        "When speed kills stability (2025); TRL has a cap of 3",
        ({"cap": 2.0}, {"cap": 3.0}),
        optional=("low",),
    ),
    Rule(
        mismatch.geometric_mask,
        "sequence",
        "w = ρ(y) while low ≤ ρ(y)^(1/T) ≤ high",
        "When speed kills stability (2025); verl",
        ({"low": 0.999, "high": 1.001},),
    ),
    Rule(
        mismatch.k3_rejection,
        "sequence",
        "w = ρ(y) while mean k3 ≤ threshold",
        "trust region masking by the mean (2512.23075), from sampled tokens; verl has 0.01",
        ({"threshold": 0.001}, {"threshold": 0.01}),
    ),
    Rule(
        mismatch.worst_token_rejection,
        "sequence",
        "w = ρ(y) while low ≤ every ρ ≤ high",
        "INTELLECT-3 (2025), 1e-5; examples of slime and miles, 1e-4",
        ({"low": 1e-4}, {"low": 1e-5}),
        optional=("high",),
    ),
    Rule(
        mismatch.trust_region_mask_max,
        "sequence",
        "w = ρ(y) while every KL(μ‖π_old) ≤ threshold",
        "Trust region masking (2512.23075)",
        ({"threshold": 0.05},),
        needs=("state_kl",),
    ),
    Rule(
        mismatch.trust_region_mask_mean,
        "sequence",
        "w = ρ(y) while mean KL(μ‖π_old) ≤ threshold",
        "Trust region masking (2512.23075)",
        ({"threshold": 0.001},),
        needs=("state_kl",),
    ),
    Rule(
        mismatch.largest_k3_rejection,
        "sequence",
        "w = ρ(y) while every k3 ≤ threshold",
        "trust region masking (2512.23075) with k3 of the sampled token in the place of the state's KL; verl",
        ({"threshold": 0.05},),
    ),
    Rule(
        mismatch.error_rejection,
        "sequence",
        "w = ρ(y) while mean e^|d| ≤ threshold",
        "NeMo-RL",
        ({"threshold": 1.5},),
    ),
    Rule(
        mismatch.mean_ratio_mask,
        "sequence",
        "w = ρ(y) while low ≤ mean ρ ≤ high",
        "MLPerf Training 6.1 reference",
        ({"low": 0.999, "high": 1.002},),
    ),
    Rule(
        policy.one_sided_sequence_mask,
        "sequence",
        "w = 1 unless A < 0 and mean (log μ − log π_θ) > threshold",
        "DeepSeek-V3.2 (2512.02556), equation 9; TRL",
        ({"threshold": 0.5},),
        needs=("advantages",),
        instead=_BEFORE_UPDATES,
    ),
    Rule(
        policy.dppo_tv_mask,
        "token",
        "w = π_θ/μ unless A > 0 and π_θ − μ > high, or A ≤ 0 and μ − π_θ > low",
        "DPPO (2602.04879), binary TV; prime-rl",
        ({"low": 0.2, "high": 0.2},),
        needs=("advantages", "logprobs"),
        instead=_BEFORE_UPDATES,
    ),
    Rule(
        policy.dppo_kl_mask,
        "token",
        "w = π_θ/μ unless A pushes further and KL of (a, not a) > threshold",
        "DPPO (2602.04879), binary KL",
        ({"threshold": 0.05},),
        needs=("advantages", "logprobs"),
        instead=_BEFORE_UPDATES,
    ),
    Rule(
        policy.ipo_mask,
        "token",
        "w = π_θ/μ while |π_θ − μ| ≤ threshold",
        "prime-rl",
        ({"threshold": 0.1},),
        needs=("logprobs",),
        instead=_BEFORE_UPDATES,
    ),
    Rule(
        policy.one_sided_reference_kl,
        "token",
        "w = π_θ/μ while μ − π_θ ≤ threshold",
        "prime-rl, on-policy distillation",
        ({"threshold": 0.2},),
        needs=("logprobs",),
        instead=_BEFORE_UPDATES,
    ),
    Rule(
        policy.ppo_clip,
        "token",
        "w = r unless A > 0 and r > 1 + high, or A < 0 and r < 1 − low",
        "PPO (1707.06347), GRPO (2402.03300)",
        ({"low": 0.2, "high": 0.2},),
        needs=("target", "advantages"),
    ),
    Rule(
        policy.gspo_clip,
        "sequence",
        "w = r(y)^(1/T) unless A > 0 and it is > 1 + high, or A < 0 and it is < 1 − low",
        "GSPO (2507.18071)",
        ({"low": 3e-4, "high": 4e-4},),
        needs=("target", "advantages"),
    ),
    Rule(
        policy.cispo,
        "token",
        "w = r clamped to [low, high]",
        "CISPO (2506.13585); the cap of 5 is ScaleRL's, as TRL has it",
        ({"low": 0.0, "high": 5.0},),
        needs=("target",),
    ),
    Rule(
        policy.decoupled_ppo,
        "token",
        "w = ρ · (r clamped to [1 − low, 1 + high])",
        "Decoupled PPO (2110.00641); AReaL (2505.24298)",
        ({"low": 0.2, "high": 0.2},),
        needs=("target",),
    ),
)

RULES: dict[str, Rule] = {rule.name: rule for rule in _RULES}
"""By name. `second_moment` has M2PO, the one rule that looks at a whole batch and stands apart."""

_OF_AN_AUDIT = (
    "token_tis",
    "icepop",
    "sequence_tis",
    "sequence_mis",
    "geometric_mask",
    "k3_rejection",
    "worst_token_rejection",
    "trust_region_mask_max",
    "trust_region_mask_mean",
)
USUAL: tuple[tuple[str, tuple[dict[str, float], ...]], ...] = tuple(
    (name, RULES[name].usual) for name in _OF_AN_AUDIT
)
"""What a report of two policies shows: rules of the mismatch at the thresholds in use."""
EVERY: tuple[tuple[str, tuple[dict[str, float], ...]], ...] = tuple(
    (name, rule.usual) for name, rule in RULES.items()
)
