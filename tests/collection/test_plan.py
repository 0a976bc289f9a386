"""What an audit plans before it starts an engine: the evidence that all sides see, within the budget."""

from __future__ import annotations

from pathlib import Path

import pytest

from mismatchscope.collection.capabilities import plan_evidence
from mismatchscope.collection.passes import plan_audit
from mismatchscope.config import AuditSettings
from mismatchscope.engines.spec import parse_spec
from mismatchscope.errors import ConfigError

TEMPERED = {"temperature": 0.7, "max_new_tokens": 100, "samples": 1}


def test_evidence_is_what_every_side_can_see() -> None:
    specs = [parse_spec(text) for text in ("synthetic", "synthetic", "openai@http://127.0.0.1:8000")]
    assert plan_evidence(AuditSettings(), specs[:2], prompts=4, traces=2).evidence.level == "full"
    assert plan_evidence(AuditSettings(), specs, prompts=4, traces=3).evidence.level == "topk"


def test_the_raw_policy_beside_the_sampled_one_takes_its_share_of_the_budget() -> None:
    bytes_a_trace = 10 * 100 * 64 * 4  # prompts, tokens, ids, float32

    def planned(traces: int, **sampling: object) -> None:
        settings = AuditSettings(evidence="full", budget=str(2 * bytes_a_trace), sampling=TEMPERED | sampling)
        plan_evidence(settings, [parse_spec("synthetic")], prompts=10, traces=traces)

    planned(2, temperature=1.0)
    planned(1)
    with pytest.raises(ConfigError, match="budget"):
        planned(2)


@pytest.mark.parametrize(("policy", "needed"), [("raw", True), ("processed", False), ("support", False)])
def test_a_rollout_is_told_that_the_raw_policy_is_needed(policy: str, needed: bool) -> None:
    """So that a server which cannot show it is refused before it samples anything."""
    settings = AuditSettings(policy=policy, sampling=TEMPERED)
    spec = parse_spec("synthetic")
    evidence = plan_evidence(settings, [spec, spec], prompts=4, traces=2).evidence
    rollout, *_ = plan_audit(settings, Path("run"), evidence, spec)["behavior"]
    assert (rollout.source, rollout.policy, rollout.needs_raw) == (None, "processed", needed)
