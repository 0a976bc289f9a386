"""The experts of two sides, from files of what was shown, joined to the states of a pair.

Shapes: S sequences, T tokens, P tokens of a prompt, E experts, k of them chosen.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from written_traces import full_trace, pair_of

from mismatchscope.comparison.pair import Pair
from mismatchscope.comparison.routing import routing_of
from mismatchscope.engines.common.stage_files import write_internals
from mismatchscope.errors import ConfigError, NotComparableError
from mismatchscope.measures.routing_results import Routing
from mismatchscope.records import Evidence

SEQUENCES, LENGTH, EXPERTS = 3, 6, 4


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    """TV 0.1 at the even states of each response, 0.3 at the odd ones."""
    shift_T = np.where(np.arange(LENGTH) % 2, 0.3, 0.1)
    mu = full_trace(tmp_path / "mu", [np.tile([0.5, 0.5], (LENGTH, 1))] * SEQUENCES)
    pi = full_trace(tmp_path / "pi", [np.stack([0.5 + shift_T, 0.5 - shift_T], axis=1)] * SEQUENCES)
    return pair_of(mu, pi)


def show(directory: Path, pair: Pair, flip: bool, layers: tuple[int, ...] = (1,), **changes: Any) -> Path:
    """One layer's routes; where `flip` says so, the odd states of each response go to another pair of experts."""
    directory.mkdir()
    for request in pair.mu.requests(Evidence("sampled")):
        prompt = len(request.prompt_token_ids)
        position_T = np.arange(prompt + LENGTH + changes.get("longer", 0)) - (prompt - 1)
        chosen_T = flip & (position_T >= 0) & (position_T % 2 == 1)
        ids_Tk = torch.from_numpy(np.where(chosen_T[:, None], [[2, 3]], [[0, 1]]))
        stages = {}
        for layer in layers:
            stages |= {
                f"layers.{layer}.router": torch.zeros(len(position_T), EXPERTS).scatter(1, ids_Tk, 1.0).bfloat16(),
                f"layers.{layer}.expert_ids": ids_Tk[:, : changes.get("slots", 2)].clone(),
                f"layers.{layer}.expert_weights": torch.full((len(position_T), changes.get("slots", 2)), 0.5),
            }
        write_internals(directory, request.sequence_id, stages, {"layers.0.expert_ids": "layer 0 has no router"})
    return directory


def held(pair: Pair, mu: Path, pi: Path) -> Routing:
    return routing_of(pair, (mu, pi), pair.mu.requests(Evidence("sampled")), behavior="engine prefill")


def test_states_and_their_tv_are_joined_to_their_own_routes(pair: Pair, tmp_path: Path) -> None:
    found = held(pair, show(tmp_path / "a", pair, False), show(tmp_path / "b", pair, True))
    assert (found.tokens, found.prompts, found.experts, found.chosen) == (SEQUENCES * LENGTH, SEQUENCES, EXPERTS, 2)
    assert found.flipped.value == 0.5
    assert found.tv_flipped.value == pytest.approx(0.3, abs=1e-6)
    assert found.tv_same.value == pytest.approx(0.1, abs=1e-6)
    assert found.tv_untouched.n == SEQUENCES, "the first state of each response alone"
    [layer] = found.layers
    assert layer.layer == 1 and layer.margin_flipped == layer.margin_same == 1.0


def test_layers_that_one_side_does_not_show_are_left_out(pair: Pair, tmp_path: Path) -> None:
    found = held(pair, show(tmp_path / "a", pair, False, (1, 2)), show(tmp_path / "b", pair, False, (2, 3)))
    assert [layer.layer for layer in found.layers] == [2] and found.flipped.value == 0.0


def test_what_does_not_belong_together_is_refused(pair: Pair, tmp_path: Path) -> None:
    plain = show(tmp_path / "plain", pair, False)
    cases: list[tuple[dict[str, Any], str]] = [
        ({"longer": 1}, "of other tokens"),
        ({"slots": 1}, "choose 2 and 1 experts"),
        ({"layers": (0,)}, "No layer shows the experts"),
    ]
    for number, (changes, why) in enumerate(cases):
        with pytest.raises(NotComparableError, match=why):
            held(pair, plain, show(tmp_path / str(number), pair, False, **changes))
    (tmp_path / "empty").mkdir()
    with pytest.raises(NotComparableError, match="No sequence has routes"):
        held(pair, plain, tmp_path / "empty")
    dense = [show(tmp_path / name, pair, False, ()) for name in ("dense", "dense too")]
    with pytest.raises(ConfigError, match="no layer that chooses experts"):
        held(pair, *dense)
