"""Agreement of two sides' experts, against plain loops and on faults that were planted."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mismatchscope.measures.routing import Routes, RoutingSums, decision_margins, is_renumbering
from mismatchscope.measures.routing_results import Routing

EXPERTS, CHOSEN, LAYERS = 6, 2, 3


def routed(logits_LSE: np.ndarray, chosen: int = CHOSEN) -> Routes:
    """The largest logits, their softmax as weights."""
    ids_LSk = np.argsort(-logits_LSE, axis=2, kind="stable")[:, :, :chosen]
    weights_LSE = np.exp(logits_LSE) / np.exp(logits_LSE).sum(axis=2, keepdims=True)
    return Routes(ids_LSk, np.take_along_axis(weights_LSE, ids_LSk, axis=2), logits_LSE)


def measured(pairs: list[tuple[Routes, Routes]], tv: list[np.ndarray], prompt_length: int = 2) -> Routing:
    sums = RoutingSums(list(range(LAYERS)), EXPERTS)
    for number, ((mu, pi), tv_T) in enumerate(zip(pairs, tv, strict=True)):
        start = prompt_length - 1
        sums.add(number, mu, pi, slice(start, start + len(tv_T)), tv_T)
    return sums.result("engine prefill")


def drawn(
    seed: int, noise: float, sequences: int = 4, tokens: int = 12
) -> tuple[list[tuple[Routes, Routes]], list]:
    rng = np.random.default_rng(seed)
    pairs, tv = [], []
    for _ in range(sequences):
        logits_LSE = rng.normal(size=(LAYERS, tokens, EXPERTS))
        pairs.append((routed(logits_LSE), routed(logits_LSE + noise * rng.normal(size=logits_LSE.shape))))
        tv.append(rng.uniform(0, 0.2, tokens - 2))
    return pairs, tv


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.05, 0.5, 3.0]))
def test_every_share_is_that_of_a_plain_loop(seed: int, noise: float) -> None:
    pairs, tv = drawn(seed, noise)
    found = measured(pairs, tv)
    flips, order, jaccard, weights = [], 0, {layer: [] for layer in range(LAYERS)}, []
    state_flips, by_group = [], {"tv_same": [], "tv_flipped": [], "tv_untouched": []}
    after: dict[bool, list[bool]] = {True: [], False: []}
    for (mu, pi), tv_T in zip(pairs, tv, strict=True):
        previous, touched = None, False
        for s in range(1 + len(tv_T)):
            sets = [(set(mu.ids_LSk[n, s].tolist()), set(pi.ids_LSk[n, s].tolist())) for n in range(LAYERS)]
            flip = any(a != b for a, b in sets)
            touched = touched or flip
            if s < 1:
                continue
            state_flips.append(flip)
            value = tv_T[s - 1]
            by_group["tv_flipped" if flip else "tv_same"].append(value)
            if not touched:
                by_group["tv_untouched"].append(value)
            if previous is not None:
                after[previous].append(flip)
            previous = flip
            for layer, (a, b) in enumerate(sets):
                flips.append(a != b)
                order += a == b and mu.ids_LSk[layer, s].tolist() != pi.ids_LSk[layer, s].tolist()
                jaccard[layer].append(len(a & b) / len(a | b))
                for expert in a & b:
                    ours, theirs = (
                        side.weights_LSk[layer, s][side.ids_LSk[layer, s].tolist().index(expert)]
                        for side in (mu, pi)
                    )
                    weights.append((layer, abs(ours - theirs)))
    assert found.tokens == len(state_flips) and found.prompts == len(pairs)
    assert found.flipped.value == pytest.approx(np.mean(state_flips))
    assert found.decisions.value == pytest.approx(np.mean(flips)) and found.decisions.n == len(flips)
    assert found.reordered.value == pytest.approx(order / len(flips))
    for name, values in by_group.items():
        interval = getattr(found, name)
        assert interval.n == len(values)
        assert interval.value == (pytest.approx(np.mean(values)) if values else None)
    for interval, values in ((found.after_flip, after[True]), (found.after_same, after[False])):
        assert interval.value == (pytest.approx(np.mean(values)) if values else None)
    for layer in found.layers:
        assert layer.jaccard.value == pytest.approx(np.mean(jaccard[layer.layer]))
        common = [difference for number, difference in weights if number == layer.layer]
        assert layer.weight_difference.value == (pytest.approx(np.mean(common)) if common else None)
        assert (layer.same_slots.value or 0.0) <= (layer.same_set.value or 0.0)


def test_the_same_routes_have_no_flip_and_no_figure_of_one() -> None:
    pairs, tv = drawn(1, 0.0)
    found = measured(pairs, tv)
    assert found.flipped.value == found.decisions.value == found.reordered.value == 0.0
    assert found.tv_flipped.value is None and found.after_flip.value is None
    assert found.tv_same == found.tv_untouched
    assert all(each.margin_flipped is None and each.logit_difference == 0.0 for each in found.layers)


def test_flips_of_small_noise_are_near_ties() -> None:
    pairs, tv = drawn(2, 0.05, sequences=40, tokens=50)
    for layer in measured(pairs, tv).layers:
        assert layer.margin_flipped is not None and layer.margin_same is not None
        assert layer.margin_flipped < 0.2 * layer.margin_same
        assert layer.logit_difference == pytest.approx(0.05, rel=0.2)


def test_a_slot_order_is_no_flip() -> None:
    pairs, tv = drawn(3, 0.0)
    swapped = [(mu, Routes(pi.ids_LSk[:, :, ::-1], pi.weights_LSk[:, :, ::-1])) for mu, pi in pairs]
    found = measured(swapped, tv)
    assert found.flipped.value == 0.0 and found.reordered.value == 1.0
    assert all(each.same_set.value == 1.0 and each.same_slots.value == 0.0 for each in found.layers)
    assert all(each.weight_difference.value == 0.0 and each.logit_difference is None for each in found.layers)


def test_renumbered_experts_are_told_from_flips() -> None:
    pairs, tv = drawn(4, 0.05, sequences=20, tokens=30)
    permutation = np.array([1, 0, 2, 3, 5, 4])
    renumbered = [(mu, Routes(permutation[pi.ids_LSk], pi.weights_LSk)) for mu, pi in pairs]
    assert all(each.renumbered for each in measured(renumbered, tv).layers)
    assert not any(each.renumbered for each in measured(pairs, tv).layers)
    other, _ = drawn(5, 0.05, sequences=20, tokens=30)
    unrelated = [(mu, pi) for (mu, _), (_, pi) in zip(pairs, other, strict=True)]
    assert not any(each.renumbered for each in measured(unrelated, tv).layers)


def test_an_expert_that_was_hardly_used_proves_no_renumbering() -> None:
    assert not is_renumbering(np.array([[50, 0, 0], [0, 50, 0], [0, 0, 0]]))
    assert not is_renumbering(np.array([[50, 0, 0, 0], [0, 50, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0]]))
    assert is_renumbering(np.array([[0, 50, 0], [50, 0, 0], [0, 0, 1]]))


def test_a_margin_is_only_of_what_the_logits_decided() -> None:
    logits_TE = np.array([[3.0, 1.0, 2.5, 0.0], [3.0, 1.0, 2.5, 0.0], [1.0, 1.0, 1.0, 0.0]])
    ids_Tk = np.array([[0, 2], [0, 1], [2, 1]])
    np.testing.assert_array_equal(decision_margins(logits_TE, ids_Tk), [1.5, np.nan, 0.0])


def test_bursts_show_in_what_follows_a_flip() -> None:
    ids_LSk = np.zeros((LAYERS, 41, CHOSEN), dtype=np.int64) + np.arange(CHOSEN)
    other_LSk = ids_LSk.copy()
    other_LSk[1, 21:, 1] = 3  # the later half of the response, in one layer
    weights_LSk = np.full(ids_LSk.shape, 0.5)
    found = measured([(Routes(ids_LSk, weights_LSk), Routes(other_LSk, weights_LSk))], [np.zeros(40)])
    assert found.flipped.value == 0.5 and found.decisions.value == pytest.approx(0.5 / LAYERS)
    assert found.after_flip.value == 1.0 and found.after_same.value == pytest.approx(1 / 20)


def test_states_of_unknown_tv_count_as_choices_alone() -> None:
    pairs, tv = drawn(6, 0.5)
    found = measured(pairs, [np.full_like(each, np.nan) for each in tv])
    assert found.tv_same.value is None and found.tv_flipped.value is None and (found.flipped.value or 0.0) > 0
