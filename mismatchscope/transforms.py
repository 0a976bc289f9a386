"""How a policy is sampled: what lies between its logits and the draw of a token."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Transforms:
    """What lies between the logits and the policy sampled from.

    top_k 0, top_p 1 and min_p 0 mean "no truncation"; temperature 0 is greedy. Our own engines draw with
    temperature, top-p and top-k; the others are those of a log.
    """

    # For pydantic, which reads it from manifests: a transform that this version does not know must not be lost.
    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012 - read, never written

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: dict[int, float] | None = field(default=None, hash=False)

    @property
    def transforms(self) -> bool:
        """Whether the distribution sampled from differs from the raw softmax of the logits."""
        return self.temperature != 1.0 or self.truncates or self.reweighs

    @property
    def truncates(self) -> bool:
        """Whether top-p, top-k or min-p excludes ids that the model gives a probability."""
        return self.top_p < 1.0 or self.top_k > 0 or self.min_p > 0.0

    @property
    def reweighs(self) -> bool:
        """Whether a penalty or a bias makes some ids more or less probable."""
        penalties = self.repetition_penalty - 1.0, self.presence_penalty, self.frequency_penalty
        return any(penalties) or bool(self.logit_bias)


@dataclass(frozen=True)
class Sampling(Transforms):
    """How the behaviour policy draws tokens. An equal seed draws equal numbers for a sequence id."""

    max_new_tokens: int = 96
    seed: int = 0
