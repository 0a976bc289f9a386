"""`write_trace` from arrays: what a trainer has in its hands becomes the trace that it means."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mismatchscope as ms
from mismatchscope.errors import MismatchScopeError, OutputExistsError, UsageError

B, T, V = 6, 5, 12
RNG = np.random.default_rng(0)
PROMPTS = [[1, 2], [1, 2], [3], [3], [4, 5, 6], [1, 2]]
RESPONSES = RNG.integers(V, size=(B, T))
LOGPROBS = -RNG.exponential(size=(B, T))


def write(path: Path, **changes: Any) -> ms.Trace:
    given = {"role": "behavior", "prompts": PROMPTS, "responses": RESPONSES, "logprobs": LOGPROBS}
    return ms.write_trace(path, **given | changes)


def rows(trace: ms.Trace) -> list[tuple[list[int], list[int], list[float]]]:
    """Prompt, response and log-probs of each sequence."""
    tokens = trace.tokens().groupby("sequence_id")["logprob"].apply(list)
    return [
        (row.prompt_token_ids.tolist(), row.response_token_ids.tolist(), tokens.get(row.sequence_id, []))
        for row in trace.sequences().itertuples()
    ]


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    trace = write(
        tmp_path / "mu", engine="mine", temperature=0.7, policy_version=3, worker=["a", "b"] * 3, group="g"
    )
    assert rows(trace) == [(PROMPTS[b], RESPONSES[b].tolist(), LOGPROBS[b].tolist()) for b in range(B)]
    sequences = trace.sequences()
    assert sequences["prompt_id"].tolist() == [0, 0, 1, 1, 2, 0]
    assert sequences["policy_version"].tolist() == [3] * B
    assert sequences["worker"].tolist() == ["a", "b"] * 3
    assert sequences["group"].tolist() == ["g"] * B
    manifest = trace.manifest
    assert (manifest.engine, manifest.role, manifest.path, manifest.policy) == (
        "mine",
        "behavior",
        "rollout",
        "processed",
    )
    assert manifest.temperature == 0.7
    assert (manifest.counts.prompts, manifest.counts.sequences, manifest.counts.tokens) == (3, B, B * T)
    assert ms.open_trace(tmp_path / "mu").manifest == manifest


def test_what_is_not_said_is_unknown(tmp_path: Path) -> None:
    manifest = write(tmp_path / "pi", role="reference").manifest
    assert manifest.sampling is None and manifest.temperature is None
    assert manifest.model.name is manifest.model.weights_sha256 is manifest.model.vocabulary_size is None
    assert manifest.path == "prefill"
    assert manifest.effective == {}


def test_raw_log_probs_were_divided_by_nothing(tmp_path: Path) -> None:
    manifest = write(tmp_path / "mu", policy="raw", temperature=0.7).manifest
    assert (manifest.policy, manifest.temperature) == ("raw", 1.0)


@given(
    lengths=st.lists(st.integers(0, 6), min_size=1, max_size=5).filter(any),
    padding=st.integers(0, 3),
    fill=st.sampled_from([-100, -1, 0, 7]),
)
@settings(max_examples=20, deadline=None)
def test_ragged_lists_and_padded_arrays_are_one(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], padding: int, fill: int
) -> None:
    width = max(lengths) + padding
    mask = np.arange(width) < np.array(lengths)[:, None]
    rng = np.random.default_rng(sum(lengths))
    responses = np.where(mask, rng.integers(V, size=mask.shape), fill)
    logprobs = np.where(mask, -rng.exponential(size=mask.shape), 1.0)
    prompts = [[9]] * len(lengths)
    directory = tmp_path_factory.mktemp("ragged")
    padded = write(directory / "a", prompts=prompts, responses=responses, logprobs=logprobs, mask=mask)
    lists = [
        [row[:length].tolist() for row, length in zip(table, lengths, strict=True)]
        for table in (responses, logprobs)
    ]
    ragged = write(directory / "b", prompts=prompts, responses=lists[0], logprobs=lists[1])
    assert rows(padded) == rows(ragged)
    assert [len(response) for _, response, _ in rows(padded)] == lengths


@pytest.mark.parametrize("mask_type", ["bool", "int64", "float32"])
def test_tensors_are_taken_as_they_are(tmp_path: Path, mask_type: str) -> None:
    torch = pytest.importorskip("torch")
    mask = torch.ones(B, T, dtype=getattr(torch, mask_type))
    mask[2, 3:] = 0
    logprobs = torch.tensor(LOGPROBS, dtype=torch.float32, requires_grad=True) * 1.0  # in a graph
    trace = write(tmp_path / "mu", responses=torch.tensor(RESPONSES), logprobs=logprobs, mask=mask)
    expected = LOGPROBS.astype(np.float32).astype(np.float64)
    assert [logp for _, _, logp in rows(trace)] == [expected[b, : 3 if b == 2 else T].tolist() for b in range(B)]
    lists = write(tmp_path / "lists", responses=list(torch.tensor(RESPONSES)), logprobs=list(logprobs), mask=mask)
    assert rows(lists) == rows(trace)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_noted_down(tmp_path: Path, dtype: str) -> None:
    torch = pytest.importorskip("torch")
    half = torch.tensor(LOGPROBS).to(getattr(torch, dtype))
    trace = write(tmp_path / "mu", logprobs=half)
    assert trace.manifest.effective == {"logprob_dtype": dtype}
    assert rows(trace)[0][2] == half[0].double().tolist()
    assert write(tmp_path / "list", logprobs=list(half)).manifest.effective == {"logprob_dtype": dtype}


def test_padding_of_prompts_goes_on_either_side(tmp_path: Path) -> None:
    prompts = np.array([[0, 1, 2], [1, 2, 0], [0, 0, 3], [3, 0, 0], [4, 5, 6], [1, 2, 0]])
    mask = prompts > 0
    trace = write(tmp_path / "mu", prompts=prompts, prompt_mask=mask)
    assert [prompt for prompt, _, _ in rows(trace)] == PROMPTS
    assert trace.sequences()["prompt_id"].tolist() == [0, 0, 1, 1, 2, 0]


def test_a_hole_in_the_mask_moves_no_token(tmp_path: Path) -> None:
    """A tool's output stays where it is: left out and counted."""
    mask = np.ones((B, T), dtype=int)
    mask[1, 1:3] = 0
    mu = write(tmp_path / "mu", mask=mask)
    pi = write(tmp_path / "pi", role="reference", logprobs=LOGPROBS - 0.01, mask=mask)
    _, response, logprobs = rows(mu)[1]
    assert response == RESPONSES[1].tolist()
    assert np.isnan(logprobs).tolist() == [False, True, True, False, False]
    report = ms.compare(mu, pi)
    assert (report.counts.masked, report.counts.rejected) == (2, 0)
    assert mu.tokens()["mask"].tolist() == mask.astype(bool).ravel().tolist()
    assert report.counts.tokens == B * T - 2
    assert report.token.abs_logprob_diff.mean == pytest.approx(0.01)


def test_a_response_without_a_token_keeps_its_place(tmp_path: Path) -> None:
    mask = np.ones((B, T), dtype=bool)
    mask[3] = False
    mu = write(tmp_path / "mu", mask=mask)
    pi = write(tmp_path / "pi", role="reference", mask=mask)
    assert rows(mu)[3] == ([3], [], [])
    assert ms.compare(mu, pi).counts.tokens == (B - 1) * T


def test_sequence_ids_pair_what_comes_in_another_order(tmp_path: Path) -> None:
    order = [4, 2, 0, 5, 1]
    mu = write(tmp_path / "mu")
    pi = write(
        tmp_path / "pi",
        role="reference",
        prompts=[PROMPTS[b] for b in order],
        responses=RESPONSES[order],
        logprobs=LOGPROBS[order] - 0.5,
        sequence_ids=np.array(order),
        worker=[f"rank {b}" for b in order],
    )
    assert pi.sequences()["worker"].tolist() == [f"rank {b}" for b in sorted(order)]
    report = ms.compare(mu, pi)
    assert report.token.abs_logprob_diff.mean == pytest.approx(0.5)
    assert (report.counts.unmatched_behavior, report.counts.unmatched_reference) == (1, 0)


def test_prompt_ids_can_be_given(tmp_path: Path) -> None:
    assert write(tmp_path / "mu", prompt_ids=[0, 1, 2, 3, 4, 5]).manifest.counts.prompts == B


def distributions(seed: int) -> np.ndarray:
    logits_BTV = np.random.default_rng(seed).normal(size=(B, T, V))
    return logits_BTV - np.logaddexp.reduce(logits_BTV, axis=2, keepdims=True)


@pytest.mark.parametrize("level", ["full", "topk"])
def test_stronger_evidence(tmp_path: Path, level: str) -> None:
    """Full distributions give the exact TV, top-k an interval around it."""
    mu_BTV, pi_BTV = distributions(1), distributions(2)
    tv = np.abs(np.exp(mu_BTV) - np.exp(pi_BTV)).sum(axis=2) / 2
    mask = np.ones((B, T), dtype=bool)
    mask[0, 2] = mask[5, 3:] = False
    top_BTK = np.argsort(-mu_BTV, axis=2)[:, :, :4]
    top_BTK[:, 0, 3] = -1  # a list that is shorter
    traces = []
    for role, logp_BTV in (("behavior", mu_BTV), ("reference", pi_BTV)):
        more = {"full_logprobs": logp_BTV}
        if level == "topk":
            more = {
                "topk_ids": top_BTK,
                "topk_logprobs": np.take_along_axis(logp_BTV, np.maximum(top_BTK, 0), axis=2),
            }
        logprobs = np.take_along_axis(logp_BTV, RESPONSES[..., None], axis=2)[..., 0]
        traces.append(write(tmp_path / role, role=role, logprobs=logprobs, mask=mask, **more))
    report = ms.compare(*traces)
    assert report.evidence == level
    assert report.counts.tokens == B * T - 3
    if level == "full":
        assert report.token.tv.mean == pytest.approx(tv[mask].mean(), abs=1e-6)
        assert report.alpha1.observed_max == pytest.approx(tv[mask].max(), abs=1e-6)
    else:
        assert traces[0].evidence.k == 4
        assert report.token.tv_lower.mean <= tv[mask].mean() <= report.token.tv_upper.mean
        assert report.alpha1.observed_max <= tv[mask].max() <= report.alpha1.observed_upper


def test_a_sampled_token_appended_to_the_top_k_is_none_of_it(tmp_path: Path) -> None:
    """As servers list it: K ids, and one more where the sampled token is not among them."""
    logp_BTV = np.log(np.random.default_rng(0).dirichlet(np.ones(V), (B, T)))
    top_BTK = np.argsort(-logp_BTV, axis=2)[:, :, :3]
    inside = (top_BTK == RESPONSES[..., None]).any(axis=2)
    assert inside.any() and not inside.all()
    listed_BTK = np.concatenate([top_BTK, np.where(inside, -1, RESPONSES)[..., None]], axis=2)
    for ids_BTK in (listed_BTK, top_BTK):
        logp_BTK = np.take_along_axis(logp_BTV, np.maximum(ids_BTK, 0), axis=2)
        path = tmp_path / str(ids_BTK.shape[2])
        trace = write(path, logprobs=logp_BTV.max(axis=2), topk_ids=ids_BTK, topk_logprobs=logp_BTK)
        assert trace.evidence.k == 3


RAGGED = [[1, 2, 3]] * B
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "text": ({"responses": ["a text"] * B}, r"responses\[0\] is text"),
    "one text": ({"prompts": "a text"}, "prompts is text"),
    "a single row": ({"responses": [1, 2], "logprobs": [-1.0, -2.0]}, "responses is a list of numbers"),
    "no array": ({"logprobs": object()}, "logprobs is not an array of numbers"),
    "ragged within a row": (
        {"logprobs": [[[-1.0], [-1.0, -2.0]]] * B},
        r"logprobs\[0\] is not an array of numbers",
    ),
    "one prompt a group": ({"prompts": [[1], [2], [3]]}, "prompts has 3 rows, responses has 6"),
    "the prompt's log-probs too": (
        {"logprobs": np.full((B, T + 2), -1.0)},
        r"logprobs\[0\] has the shape \(7,\) for 5",
    ),
    "logits": ({"logprobs": np.zeros((B, T, V))}, r"logprobs\[0\] has the shape \(5, 12\)"),
    "losses": ({"logprobs": -LOGPROBS}, r"logprobs\[0\] has .* at position 0: no log-prob is above 0"),
    "a ragged mask": ({"mask": RAGGED}, r"mask\[0\] has the shape \(3,\) for 5 tokens"),
    "weights as a mask": ({"mask": np.full((B, T), 0.5)}, r"mask\[0\] has 0.5 at position 0, neither 0 nor 1"),
    "nothing chosen": ({"mask": np.zeros((B, T))}, "no response token"),
    "no response": ({"prompts": [], "responses": [], "logprobs": []}, "no response token"),
    "padding": ({"responses": np.where(RESPONSES > 5, -100, RESPONSES)}, r"-100 at position"),
    "ids as floats": ({"responses": RESPONSES + 0.5}, r"responses\[0\] is float64"),
    "an id twice": ({"sequence_ids": [0, 1, 2, 3, 4, 4]}, "sequence_ids has an id twice"),
    "negative ids": ({"sequence_ids": [-1, 1, 2, 3, 4, 5]}, "sequence_ids has values that are not integers from 0"),
    "too few workers": ({"worker": ["a", "b"]}, "worker has 2 values for 6 responses"),
    "half of top-k": ({"topk_ids": np.zeros((B, T, 2), dtype=int)}, "needs topk_ids and topk_logprobs"),
    "two kinds of evidence": (
        {
            "topk_ids": np.zeros((B, T, 1), dtype=int),
            "topk_logprobs": np.full((B, T, 1), -1.0),
            "full_logprobs": np.full((B, T, V), -np.log(V)),
        },
        "Both top-k and full",
    ),
    "rising top-k": (
        {"topk_ids": np.tile([0, 1], (B, T, 1)), "topk_logprobs": np.tile([-2.0, -1.0], (B, T, 1))},
        r"topk_logprobs\[0\] rises",
    ),
    "top-k of two widths": (
        {"topk_ids": np.zeros((B, T, 3), dtype=int), "topk_logprobs": np.zeros((B, T, 2))},
        r"topk_ids\[0\] has 3 ids a token, topk_logprobs\[0\] 2",
    ),
    "another role": ({"role": "rollout"}, "role is 'rollout'"),
    "another policy": ({"policy": "tempered"}, "policy is 'tempered'"),
    "an id twice in a list": (
        {"topk_ids": [[[1, 2, 3], *[[4, 5, 4]] * (T - 1)]] * B, "topk_logprobs": np.full((B, T, 3), -2.0)},
        r"topk_ids\[0\] lists id 4 twice at position 1",
    ),
    "rising log-probs in a list": (
        {"topk_ids": [[[1, 2]] * T] * B, "topk_logprobs": [[[-1.0, -2.0]] * 3 + [[-2.0, -1.0]] * (T - 3)] * B},
        r"topk_logprobs\[0\] rises from one id to the next at position 3",
    ),
}


@pytest.mark.parametrize(("changes", "message"), WRONG.values(), ids=WRONG)
def test_arrays_that_do_not_fit_are_refused_by_name(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        write(tmp_path / "mu", **changes)
    assert caught.value.hint
    assert not (tmp_path / "mu").exists()


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    write(tmp_path / "mu")
    before = (tmp_path / "mu" / "manifest.json").read_bytes()
    with pytest.raises(OutputExistsError, match="not empty"):
        write(tmp_path / "mu")
    assert (tmp_path / "mu" / "manifest.json").read_bytes() == before
    (tmp_path / "file").write_text("mine")
    with pytest.raises(MismatchScopeError):
        write(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    assert write(tmp_path / "empty").manifest.complete
