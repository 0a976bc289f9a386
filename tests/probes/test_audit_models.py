"""One audit as a whole: what it says of the models that the two sides ran."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from adapters import save_adapter
from tiny_models import save_model

from mismatchscope.collection.output import output_directory
from mismatchscope.config import AuditSettings
from mismatchscope.errors import SpecError
from mismatchscope.probes.audit import run_audit
from mismatchscope.reports.document import Report


def audit(directory: Path, **settings: Any) -> Report:
    (directory / "prompts.jsonl").write_text('{"prompt": "!!"}\n{"prompt": "a"}\n')
    small = {"prompts": directory / "prompts.jsonl", "repeats": False, "sampling": {"max_new_tokens": 8}}
    run, asked = directory / "run", AuditSettings(**small | settings)
    with output_directory(run):
        return run_audit(asked, run, command="", on_event=lambda event: None)


@pytest.mark.slow
def test_an_adapter_of_one_side_alone_is_named_and_an_odd_tokenizer_is_remarked_on(tmp_path: Path) -> None:
    model = save_model(tmp_path / "model", vocab_size=59)  # its tokenizer has 60 ids
    adapter = save_adapter(model, tmp_path / "adapter", target_modules=["q_proj", "up_proj"])
    report = audit(
        tmp_path,
        model=str(model),
        adapter=str(adapter),
        behavior="transformers:dtype=float32",
        reference="transformers:dtype=float32,adapter=none",
    )
    first = report.provenance.difference[0]
    assert (first.key, first.rank, first.reference) == ("model.adapter.weights_sha256", 1, None)
    alarms = {alarm.code: alarm for alarm in report.alarms}
    assert "One side ran the model with an adapter" in alarms["adapter"].message
    assert "1 id from 59 upwards" in alarms["alignment"].message
    assert "weights" not in alarms, "the base is the same"
    assert report.alpha1.observed_max > 1e-3


def test_an_adapter_for_an_engine_that_runs_none_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="runs no adapters"):
        audit(tmp_path, adapter="anything", reference="synthetic")
