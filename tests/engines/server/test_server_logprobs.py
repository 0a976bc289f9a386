"""Lists of log-probs, and the stages that they come from.

Shapes: T tokens, K ids, V vocabulary.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mismatchscope.engines.server.credentials import shown
from mismatchscope.engines.server.logprobs import TokenLogprobs
from mismatchscope.engines.server.stages import Stage, earliest, entries_needed, transform_to
from mismatchscope.engines.server.values import UnusableValue
from mismatchscope.errors import CapabilityError, EngineError
from mismatchscope.records import Sampling

STAGES: tuple[Stage, ...] = ("raw", "tempered", "processed")


def test_null_is_nan_and_what_stands_for_minus_infinity_is_that() -> None:
    rows = [([4, 2], [-0.5, None]), ([1], [-9999.0])]
    logprobs = TokenLogprobs.from_rows([None, -3.4e38], rows)
    np.testing.assert_array_equal(logprobs.logprob_T, [np.nan, -np.inf])
    np.testing.assert_array_equal(logprobs.ids_TN, [[4, 2], [1, -1]])
    np.testing.assert_array_equal(logprobs.logprobs_TN, [[-0.5, np.nan], [-np.inf, np.nan]])


def test_lists_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UnusableValue, match="about positions: 2 tokens, 1 lists"):
        TokenLogprobs.from_rows([-1.0, -1.0], [([0], [-1.0])])
    with pytest.raises(CapabilityError, match="reports logits"):
        TokenLogprobs.from_rows([-1.0], [([0], [3.0])])
    logprobs = TokenLogprobs.from_rows([-1.0], [([2, 0], [-1.0, -0.5])])
    with pytest.raises(EngineError, match="listed 2 of 3"):
        logprobs.full(3)
    with pytest.raises(EngineError, match="left out the log-prob of id 1"):
        logprobs.at(np.array([[0, 1]]))
    np.testing.assert_array_equal(logprobs.at(np.array([[2, -1, 0]])), [[-1.0, np.nan, -0.5]])


def test_what_an_exhaustive_list_lacks_has_no_mass() -> None:
    full_TV = TokenLogprobs.point_mass(np.array([2, 0])).full(3)
    np.testing.assert_array_equal(full_TV, [[-np.inf, -np.inf, 0], [0, -np.inf, -np.inf]])


samplings = st.builds(
    Sampling,
    temperature=st.sampled_from([0.0, 0.5, 1.0, 1.7]),
    top_p=st.sampled_from([0.6, 1.0]),
    top_k=st.sampled_from([0, 3]),
)


@settings(deadline=None)
@given(sampling=samplings, seed=st.integers(0, 2**32 - 1))
def test_a_policy_comes_out_the_same_from_every_stage_that_it_can_be_had_from(
    sampling: Sampling, seed: int
) -> None:
    torch = pytest.importorskip("torch")
    from mismatchscope.engines.common.sampling import process_logits

    logits_TV = torch.from_numpy(np.random.default_rng(seed).normal(size=(2, 6)) * 2)
    policies = {
        "raw": logits_TV.log_softmax(-1),
        "tempered": (logits_TV / (sampling.temperature or 1.0)).log_softmax(-1),
        "processed": process_logits(logits_TV, sampling).log_softmax(-1),
    }
    for stage in STAGES:
        for policy in ("raw", "processed"):
            if sampling.temperature == 0 and policy == "processed":
                continue  # a point mass on what was taken, which no list is needed for
            needed = entries_needed(policy, stage, sampling)
            if needed is None:
                assert (policy, stage) == ("raw", "processed"), "only what was cut off does not come back"
                continue
            transform = transform_to(policy, stage, sampling)
            assert (transform is None) == (needed == "any")
            logp_TV = policies[stage] if transform is None else transform(policies[stage]).log_softmax(-1)
            p_TV, expected_TV = logp_TV.exp(), policies[policy].exp()
            torch.testing.assert_close(p_TV, expected_TV, atol=1e-6, rtol=0, check_dtype=False)


def test_stages_that_do_nothing_are_the_one_before() -> None:
    assert {earliest(stage, Sampling()) for stage in STAGES} == {"raw"}
    assert earliest("processed", Sampling(temperature=0.5)) == "tempered"
    assert earliest("processed", Sampling(top_k=3)) == "processed"
    assert earliest("tempered", Sampling(temperature=0.0, top_k=3)) == "raw"


def test_foreign_text_is_one_line_without_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MISMATCHSCOPE_API_KEY", "of-this-run-1")
    assert shown("a\x1b[31m b\n\tof-this-run-1 c") == "a\\x1b[31m b [key] c"
    assert shown("nothing to hide") == "nothing to hide"
    assert len(shown("x " * 10_000)) == 301
