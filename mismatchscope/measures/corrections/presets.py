"""What trainers ship: their own corrections at their own defaults, as their sources have them.

Read in August 2026; `since` and `remark` say what is older or newer. A mask that a trainer applies without a weight
leaves the kept tokens at weight 1, which the published rule of the same name does not.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np

from .block import RatioBlock
from .catalogue import RULES
from .effect import Effect
from .weighting import EVERYTHING, by_sequence, by_token, within

Array = np.ndarray
Band = tuple[float, float]


@dataclass(frozen=True)
class Preset:
    """A weight and masks; or a rule of the catalogue, where `rule` names one.

    `weight` is of a "token", of the whole "sequence", or None for weight 1, clamped to `clamp`. Tokens outside
    `token_band` and sequences outside a band are masked.
    """

    trainer: str
    name: str
    version: str
    """Of the trainer, that was read."""
    source: str
    """The file of the trainer's repository that has the defaults."""
    weight: str | None = "token"
    clamp: Band = EVERYTHING
    token_band: Band = EVERYTHING
    ratio_band: Band | None = None
    """On rho(y)."""
    geometric_band: Band | None = None
    """On rho(y)^(1/T)."""
    mean_k3: float | None = None
    """The largest."""
    worst_token: float | None = None
    """The smallest rho_t of a sequence."""
    mean_error: float | None = None
    """The largest mean of exp |d|."""
    rule: str | None = None
    parameters: dict[str, float] = field(default_factory=dict)
    remark: str | None = None

    @property
    def key(self) -> str:
        """`verl.decoupled_geo_rs`"""
        return f"{self.trainer}.{self.name}"

    @property
    def needs(self) -> tuple[str, ...]:
        return RULES[self.rule].needs if self.rule else ()

    def apply(self, block: RatioBlock) -> Effect:
        if self.rule:
            return RULES[self.rule].apply(block, **self.parameters)
        keep_S = self._kept(block)
        if self.weight == "sequence":
            return by_sequence(block, keep_S, clamp=self.clamp)
        if self.weight is None and self.token_band == EVERYTHING:
            return by_sequence(block, keep_S, clamp=None)
        return by_token(
            block, clamp=None if self.weight is None else self.clamp, band=self.token_band, keep_S=keep_S
        )

    def remarks(self, known: frozenset[str]) -> str | None:
        """What the rule needed and had not, and what is to be known of the preset."""
        found = [RULES[self.rule].remark(known) if self.rule else None, self.remark]
        return "; ".join(each for each in found if each) or None

    def _kept(self, block: RatioBlock) -> Array | None:
        masks = []
        if self.ratio_band:
            masks.append(within(block.log_ratio_S, *self.ratio_band))
        if self.geometric_band:
            masks.append(within(block.log_ratio_S / block.length_S, *self.geometric_band))
        if self.mean_k3 is not None:
            masks.append(block.mean_k3_S <= self.mean_k3)
        if self.worst_token is not None:
            masks.append(block.smallest_log_ratio_S >= np.log(self.worst_token))
        if self.mean_error is not None:
            masks.append(block.mean_error_S <= self.mean_error)
        return np.logical_and.reduce(masks) if masks else None


_VERL: Final = ("0.10.0.dev", "verl/trainer/config/algorithm.py")
_TRL: Final = ("1.16.0", "trl/trainer/grpo_config.py")
_NEMO: Final = ("0.6", "nemo_rl/algorithms/loss/loss_functions.py")
_OPENRLHF: Final = ("0.11.0", "openrlhf/models/loss.py")
_SKYRL: Final = ("0.4.0 and 516 commits", "skyrl/train/config/config.py")
_SLIME: Final = ("0.3.1", "slime/backends/megatron_utils/loss.py")
_SLIME_EXAMPLE: Final = ("0.3.1", "examples/train_infer_mismatch_helper/mis.yaml")
_MILES: Final = ("August 2026", "miles/utils/arguments.py")
_MILES_EXAMPLE: Final = ("August 2026", "examples/infra_features/train_infer_mismatch_helper/mis.yaml")
_PRIME: Final = ("0.8.0", "packages/prime-rl-configs/src/prime_rl/configs/trainer.py")
_AREAL: Final = ("1.0.4", "areal/api/cli_args.py")
_TORCHTITAN: Final = ("0.2.2", "torchtitan/experiments/rl/losses/grpo.py")

_INVERTED = "verl bounds −log ρ by the logarithms of its thresholds: it keeps 1/high ≤ ρ ≤ 1/low, and so does this"
_NORMALISED = "the trainer then divides the weights by their mean over the batch"


def _inverted(low: float, high: float) -> Band:
    return (1 / high, 1 / low)


_GEOMETRIC: Final = _inverted(0.999, 1.001)

PRESETS: tuple[Preset, ...] = (
    Preset("verl", "decoupled_token_is", *_VERL, clamp=(0.0, 2.0)),
    Preset("verl", "decoupled_seq_is", *_VERL, weight="sequence", clamp=(0.0, 2.0)),
    Preset("verl", "decoupled_token_icepop", *_VERL, token_band=(0.5, 5.0), remark="since March 2026"),
    Preset(
        "verl",
        "decoupled_seq_is_rs",
        *_VERL,
        weight="sequence",
        clamp=(0.0, 2.0),
        ratio_band=_inverted(0.5, 2.0),
    ),
    Preset("verl", "decoupled_geo_rs", *_VERL, weight=None, geometric_band=_GEOMETRIC, remark=_INVERTED),
    Preset(
        "verl",
        "decoupled_geo_rs_token_tis",
        *_VERL,
        clamp=(0.0, 2.0),
        geometric_band=_GEOMETRIC,
        remark=_INVERTED,
    ),
    Preset(
        "verl",
        "decoupled_geo_rs_seq_tis",
        *_VERL,
        weight="sequence",
        clamp=(0.0, 2.0),
        geometric_band=_GEOMETRIC,
        remark=_INVERTED,
    ),
    Preset("verl", "decoupled_k3_rs", *_VERL, weight=None, mean_k3=0.01, remark="since January 2026"),
    Preset(
        "trl",
        "sequence_mask",
        *_TRL,
        weight="sequence",
        ratio_band=(0.0, 3.0),
        remark="the default; before clip_max the same cap was vllm_importance_sampling_cap",
    ),
    Preset("trl", "sequence_truncate", *_TRL, weight="sequence", clamp=(0.0, 3.0)),
    Preset("trl", "token_truncate", *_TRL, clamp=(0.0, 3.0)),
    Preset("trl", "token_mask", *_TRL, token_band=(0.0, 3.0)),
    Preset(
        "trl",
        "off_policy_mask",
        *_TRL,
        rule="one_sided_sequence_mask",
        parameters={"threshold": 0.5},
        remark="off unless a threshold is set; its documentation has 0.5",
    ),
    Preset("nemo_rl", "tis", *_NEMO, clamp=(0.0, 2.0), remark="off unless set; its recipes have 2"),
    Preset("nemo_rl", "icepop", *_NEMO, token_band=(0.5, 5.0)),
    Preset(
        "nemo_rl",
        "seq_mask_tis",
        *_NEMO,
        geometric_band=(0.999, 1.002),
        remark="kept sequences have the weights ρ of their tokens, which are not truncated",
    ),
    Preset(
        "nemo_rl",
        "seq_logprob_error",
        "0.6",
        "nemo_rl/algorithms/grpo.py",
        weight=None,
        mean_error=1.5,
        remark="off unless set; its guides have 1.5 and 2",
    ),
    Preset("openrlhf", "tis", *_OPENRLHF, clamp=(0.5, 5.0), remark="clamps from below as well"),
    Preset("openrlhf", "icepop", *_OPENRLHF, token_band=(0.5, 5.0)),
    Preset("openrlhf", "seq_mask_tis", *_OPENRLHF, geometric_band=(0.5, 5.0), remark="token weights not truncated"),
    Preset("skyrl", "token_tis", *_SKYRL, clamp=(0.0, 2.0)),
    Preset("skyrl", "sequence_tis", *_SKYRL, weight="sequence", clamp=(0.0, 5.0)),
    Preset("skyrl", "geometric_mask", *_SKYRL, weight=None, geometric_band=(0.99, 1.01)),
    Preset("skyrl", "product_mask", *_SKYRL, weight=None, ratio_band=(0.5, 2.0)),
    Preset("skyrl", "token_mask", *_SKYRL, weight=None, token_band=(0.5, 2.0), remark="suggested; off unless set"),
    Preset("slime", "tis", *_SLIME, clamp=(0.0, 2.0)),
    Preset(
        "slime", "icepop", *_SLIME, token_band=(0.0, 2.0), remark="the defaults of --tis-clip-low and --tis-clip"
    ),
    Preset(
        "slime",
        "mis",
        *_SLIME_EXAMPLE,
        token_band=(0.5, 2.0),
        worst_token=1e-4,
        remark=_NORMALISED,
    ),
    Preset("miles", "tis", *_MILES, clamp=(0.0, 2.0)),
    Preset(
        "miles",
        "mis",
        *_MILES_EXAMPLE,
        token_band=(0.5, 2.0),
        worst_token=1e-4,
        remark=_NORMALISED,
    ),
    Preset(
        "prime_rl",
        "default",
        *_PRIME,
        rule="dppo_tv_mask",
        parameters={"low": 0.2, "high": 0.2},
        remark="since April 2026",
    ),
    Preset(
        "prime_rl",
        "ipo",
        *_PRIME,
        rule="ipo_mask",
        parameters={"threshold": 0.1},
        remark="the default from March to April 2026",
    ),
    Preset("prime_rl", "ref_kl", *_PRIME, rule="one_sided_reference_kl", parameters={"threshold": 0.2}),
    Preset(
        "areal",
        "rejection_sampling",
        *_AREAL,
        token_band=(0.0, 5.0),
        remark="off unless set; older versions had behave_imp_weight_cap 5 with this mask on",
    ),
    Preset("areal", "decoupled_ppo", *_AREAL, rule="decoupled_ppo", parameters={"low": 0.2, "high": 0.2}),
    Preset(
        "torchtitan",
        "grpo",
        *_TORCHTITAN,
        rule="ppo_clip",
        parameters={"low": 0.2, "high": 0.2},
        remark="torchtitan clips π_θ/μ, and has no π_old; here the ratio is π_θ/π_old",
    ),
)
BY_KEY: dict[str, Preset] = {preset.key: preset for preset in PRESETS}
TRAINERS: tuple[str, ...] = tuple(dict.fromkeys(preset.trainer for preset in PRESETS))
