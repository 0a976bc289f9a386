"""Which log-probs are requested of a server, and how many at the same time."""

from __future__ import annotations

import pytest
from fake_server import FakeServer
from server_engine import FULL, SAMPLED, UNCHANGED, WARM, Connect, V, rollout

from mismatchscope.engines.server import capabilities
from mismatchscope.engines.server.capabilities import ServerCapabilities
from mismatchscope.errors import CapabilityError
from mismatchscope.records import Sampling, Task


def test_without_a_known_stage_only_unchanged_sampling_is_left() -> None:
    capabilities = ServerCapabilities("URL", V, None, V, 40, "full", "processed")
    task = Task("t", "rollout", "", "", SAMPLED, sampling=UNCHANGED)
    assert capabilities.for_rollout(task).policies == ("processed",)
    with pytest.raises(CapabilityError, match="does not show") as caught:
        capabilities.for_rollout(Task("t", "rollout", "", "", SAMPLED, sampling=WARM))
    assert "--temperature 1" in caught.value.hint


def test_an_answer_that_does_not_fit_into_memory_is_not_asked_for(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeServer("vllm", seconds=0.02) as server:
        engine = connect(server)
        monkeypatch.setattr(capabilities, "MAX_BODY_BYTES_UNDER_WAY", 2 * 80 * V * UNCHANGED.max_new_tokens)
        rollout(engine, SAMPLED, UNCHANGED)
        assert server.most_at_once > 2
        server.most_at_once = 0
        rollout(engine, FULL, UNCHANGED)
        assert server.most_at_once <= 2
        with pytest.raises(CapabilityError, match="MiB"):
            rollout(engine, FULL, Sampling(max_new_tokens=20))
