"""A side that does not give the same twice, put to the experiment that asks it to."""

from __future__ import annotations

from pathlib import Path

import pytest
from probe_runs import settings
from tiny_models import save_model

from mismatchscope.measures.results import Interval
from mismatchscope.probes.confirm.case import Case
from mismatchscope.probes.confirm.experiments import EXPERIMENTS

ENGINE = "transformers:dtype=float32,device=cpu"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "result"), [(',train_mode=true,hf_overrides={"attention_dropout":0.3}', "same_batches"), ("", "none")]
)
def test_dropout_does_not_give_the_same_twice(tmp_path: Path, fault: str, result: str) -> None:
    asked = settings(behavior=ENGINE, reference=ENGINE + fault, limit=12).model_copy(
        update={"model": str(save_model(tmp_path / "model"))}
    )
    case = Case(asked, tmp_path / "confirm", Interval(0.02, 0.018, 0.022), None, lambda event: None)
    assert EXPERIMENTS["repeat"](case).result == result
