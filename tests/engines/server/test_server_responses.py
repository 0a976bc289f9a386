"""What becomes of a run when a server says what it should not."""

from __future__ import annotations

import numpy as np
import pytest
from misbehaving_server import MisbehavingServer
from server_engine import RETRYING, Connect, sample

from mismatchscope.errors import CapabilityError, EngineError
from mismatchscope.records import Evidence


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("redirect", "redirects elsewhere"),
        ("refuse", "answers 400: Bad Request"),
        ("other form", "answers in another form"),
        ("null", "answers in another form"),
        ("other model", "answers with the model another in place of served"),
        ("other prompt", "ran other tokens than the prompt"),
        ("foreign id", "serves another model"),
        ("nothing", "0 token ids"),
        ("abort", "broke a response off: abort"),
    ],
)
def test_what_no_retry_mends_ends_the_run_at_once(
    fault: str, says: str, vllm: MisbehavingServer, connect: Connect
) -> None:
    engine = connect(vllm, **RETRYING)
    vllm.always = fault
    with pytest.raises(EngineError, match=says) as caught:
        sample(engine)
    assert "[3, 9]" not in caught.value.message, "prompts may be confidential"
    assert len(vllm.attempts) == 1


def test_nan_is_recorded_as_what_it_is(
    vllm: MisbehavingServer, sglang: MisbehavingServer, connect: Connect
) -> None:
    engine = connect(vllm)
    vllm.always = "nan"
    observed = sample(engine, evidence=Evidence("topk", k=3))[0].observed
    assert np.isnan(observed.logprob_T[0])
    assert not np.isnan(observed.logprob_T[1:]).any()
    assert observed.topk_ids_TK[0].tolist() == [-1, -1, -1], "no id was seen with a probability"
    assert (observed.topk_ids_TK[1:] >= 0).all()

    engine = connect(sglang)
    sglang.always = "null logprob"  # NaN, as JSON without NaN has it
    assert np.isnan(sample(engine)[0].observed.logprob_T[0])


def test_a_whole_distribution_of_nan_ends_the_run(vllm: MisbehavingServer, connect: Connect) -> None:
    engine = connect(vllm)
    vllm.always = "nan"
    with pytest.raises(EngineError, match="hold NaN"):
        sample(engine, evidence=Evidence("full"))


def test_logits_are_not_taken_for_log_probs(vllm: MisbehavingServer, connect: Connect) -> None:
    engine = connect(vllm)
    vllm.always = "logits"
    with pytest.raises(CapabilityError, match=r"12\.5 a log-probability: it reports logits") as caught:
        sample(engine)
    assert "--logprobs-mode raw_logprobs" in caught.value.hint


def test_weights_that_change_under_way_end_the_run(sglang: MisbehavingServer, connect: Connect) -> None:
    engine = connect(sglang)
    sglang.always = "other weights"
    with pytest.raises(EngineError, match="from 'default' to 'another'"):
        sample(engine)
