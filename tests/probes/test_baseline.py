"""What a baseline adds to an audit: the same tokens through the old engine, as the question needs them."""

from __future__ import annotations

from pathlib import Path

import pytest

from mismatchscope.collection.capabilities import plan_evidence
from mismatchscope.collection.passes import plan_audit
from mismatchscope.config import AuditSettings
from mismatchscope.engines.spec import parse_spec
from mismatchscope.probes.baseline import baseline_pass

SYNTHETIC, SERVER = parse_spec("synthetic"), parse_spec("vllm@http://127.0.0.1:8000")


@pytest.mark.parametrize(
    ("policy", "recorded", "source"), [("raw", "raw", "behavior-raw"), ("support", "processed", "behavior")]
)
def test_the_old_engine_scores_what_the_reference_scores(policy: str, recorded: str, source: str) -> None:
    settings = AuditSettings(policy=policy, sampling={"temperature": 0.7, "top_k": 8})
    evidence = plan_evidence(settings, [SYNTHETIC, SYNTHETIC], prompts=4, traces=3).evidence
    passes = plan_audit(settings, Path("run"), evidence, SYNTHETIC)
    rollout, reference = passes["behavior"][0], passes["reference"][0]
    old = baseline_pass(rollout, reference, SYNTHETIC)
    assert (old.trace, old.source) == (
        Path("run/baseline"),
        Path("run") / source,
    ) and old.source == reference.source
    assert (old.role, old.policy, old.path, old.evidence) == ("behavior", recorded, "decode", evidence)
    assert old.sampling == rollout.sampling, "it sees the tokens through the transforms that drew them"
    assert baseline_pass(rollout, reference, SERVER).path == "prefill", (
        "a server cannot force tokens through decoding"
    )
