"""How much engines show of a model's inside at most, and that the budget bounds what is kept of it."""

from __future__ import annotations

import pytest
from probe_runs import settings

from mismatchscope.demo import model_path
from mismatchscope.engines.common.stages import ROUTING
from mismatchscope.engines.spec import parse_spec
from mismatchscope.errors import ConfigError
from mismatchscope.probes.plan import Look, Plan
from mismatchscope.probes.run_probe import plan_probe
from mismatchscope.probes.shown_bytes import check_room, shown_bytes
from mismatchscope.prompts.rows import Prompt

MOE = str(model_path("moe"))
SAMPLED = settings(sampling={"samples": 2, "max_new_tokens": 6})
PROMPTS = [Prompt(0, token_ids=[1, 2, 3, 4]), Prompt(1, token_ids=[1, 2])]


def plan_of(*stages: str, extent: tuple[int, int] = (0, 0)) -> Plan:
    return Plan("it", [], keys=(), looks=[Look("it", parse_spec("transformers"), stages, extent)])


def test_what_routers_show_is_counted_for_every_token() -> None:
    routers = plan_of(*(f"layers.*.{kind}" for kind in ROUTING))
    layers, experts, chosen, tokens = 4, 8, 2, 2 * (10 + 8)
    assert shown_bytes(routers, MOE, PROMPTS, SAMPLED) == 4 * tokens * layers * (experts + 2 * chosen)


def test_an_extent_bounds_what_is_shown() -> None:
    one = shown_bytes(plan_of(extent=(1, 5)), MOE, PROMPTS, SAMPLED)
    assert one and shown_bytes(plan_of(extent=(2, 5)), MOE, PROMPTS, SAMPLED) == 2 * one
    check_room(plan_of(extent=(1, 5)), MOE, PROMPTS, SAMPLED.model_copy(update={"budget": "1B"}))


def test_a_model_that_is_not_at_hand_is_not_known() -> None:
    assert shown_bytes(plan_of(), "nobody/nothing", PROMPTS, SAMPLED) is None
    assert shown_bytes(Plan("it", [], keys=()), MOE, PROMPTS, SAMPLED) is None


def test_a_budget_that_routers_may_exceed_is_refused_before_anything_starts() -> None:
    asked = settings(model="demo:moe", behavior="transformers", reference="transformers", budget="100KiB")
    with pytest.raises(ConfigError, match="What the engines show may need up to") as refused:
        plan_probe("routing", asked)
    assert "--budget 1GiB" in str(refused.value.hint)
