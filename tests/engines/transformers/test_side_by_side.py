"""Two settings side by side: the figures of stored distributions to the bit, and nothing of a vocabulary's size."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given
from hypothesis import settings as of_hypothesis
from hypothesis import strategies as st
from side_by_side_runs import TwoSettings
from tiny_engine import ROLLOUT, Load, roll, to_score
from tiny_models import save_model
from trace_contents import files

from mismatchscope.comparison.growth import growth_of
from mismatchscope.comparison.rounding import rounding_floor
from mismatchscope.demo import model_path
from mismatchscope.engines.transformers import room, side_by_side
from mismatchscope.engines.transformers.engine import TransformersEngine
from mismatchscope.engines.transformers.options import TransformersOptions
from mismatchscope.errors import EngineError, TraceError
from mismatchscope.measures.full import EXACT, divergences
from mismatchscope.records import Sampling, finished_parts
from mismatchscope.traces.store import beside_path_of

pytestmark = pytest.mark.slow

LARGE = 151_936


@pytest.fixture(scope="session")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("large"), vocab_size=LARGE)


def assert_the_same(two: TwoSettings) -> None:
    stored, beside = two.stored(), two.side_by_side()
    assert stored.figures.evidence == beside.figures.evidence == "full"
    assert beside.figures == stored.figures, "every figure, its interval and its quantiles"
    assert beside.summary == stored.summary and growth_of(beside) == growth_of(stored)
    assert rounding_floor(beside.mu, beside.pi) == rounding_floor(stored.mu, stored.pi)
    assert beside.counts == stored.counts
    for name in ("mu", "pi"):
        ours, theirs = (getattr(pair, name).manifest for pair in (beside, stored))
        for key in ("settings", "effective", "sampling"):
            assert getattr(ours, key) == getattr(theirs, key)
    assert [note for note in beside.notes if note not in stored.notes] == [
        "Both policies were computed side by side in one process, where their whole distributions were compared; "
        "none is stored."
    ]


@pytest.mark.parametrize(
    ("model", "mu", "pi", "others"),
    [
        ("dense", "dtype=float32", "dtype=bfloat16", {}),
        ("dense", "dtype=bfloat16", "dtype=float16", {"path": "decode"}),
        ("dense", "attn=eager", "attn=sdpa,padding=packed", {}),
        ("dense", "dtype=float32", "dtype=autocast", {"sampling": Sampling(0.7, top_k=20, max_new_tokens=24)}),
        ("moe", "dtype=float32", "dtype=bfloat16,lm_head=float32", {"roles": ("behavior", "reference")}),
    ],
)
def test_the_figures_of_stored_distributions_to_the_bit(
    tmp_path: Path, model: str, mu: str, pi: str, others: dict[str, Any]
) -> None:
    assert_the_same(TwoSettings(tmp_path, model_path(model), f"transformers:{mu}", f"transformers:{pi}", **others))


@pytest.mark.parametrize("path", ["prefill", "decode"])
def test_the_figures_of_152k_words_to_the_bit(tmp_path: Path, large: Path, path: str) -> None:
    two = TwoSettings(tmp_path, large, "transformers:dtype=float32", "transformers:dtype=bfloat16", path=path)
    assert_the_same(two)
    together = sum(len(file) for file in files(tmp_path / "together").values())
    stored = sum(len(file) for name in ("mu", "pi") for file in files(tmp_path / name).values())
    assert together < 4 * LARGE < stored / 100, "less than one distribution"


def test_one_setting_twice_has_no_divergence(tmp_path: Path) -> None:
    pair = TwoSettings(tmp_path, model_path("dense"), "transformers", "transformers").side_by_side()
    assert pair.statistics.identical and pair.statistics.all_exact and pair.alpha.observed_max == 0.0


@of_hypothesis(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(chunk=st.integers(0, 40), rows=st.integers(1, 40), path=st.sampled_from(["prefill", "decode"]))
def test_whatever_is_computed_at_a_time(
    load: Load, monkeypatch: pytest.MonkeyPatch, chunk: int, rows: int, path: str
) -> None:
    """Chunks of any size, and any number of rows of them: what one forward of each model gives."""
    monkeypatch.setattr(side_by_side, "_ROWS", rows)
    requests = to_score(roll(load(), replace(ROLLOUT, sampling=Sampling(max_new_tokens=9, seed=2))))
    engine = pair_engine({"logprob_chunk": chunk}, {"logprob_chunk": chunk, "dtype": "bfloat16"}, load)
    task = replace(ROLLOUT, kind="score", path=path)
    records = {record.sequence_id: record for record in engine.score(requests, task)}
    alone = (load(logprob_chunk=chunk, dtype=dtype) for dtype in ("float32", "bfloat16"))
    sides = [{each.sequence_id: each.observed for each in side.score(requests, task)} for side in alone]
    for sequence_id, record in records.items():
        mu, pi = (side[sequence_id] for side in sides)
        found = divergences(mu.full_logprobs_RV, pi.full_logprobs_RV, normalised=True)
        expected = np.stack([getattr(found, name) for name in EXACT], axis=1)
        assert record.beside is not None
        np.testing.assert_array_equal(record.observed.exact_TF, expected)
        np.testing.assert_array_equal(record.beside.logprob_T, mu.logprob_T)
        np.testing.assert_array_equal(record.observed.logprob_T, pi.logprob_T)


def pair_engine(mu: dict[str, Any], pi: dict[str, Any], load: Load) -> side_by_side.SideBySideEngine:
    """Of two engines that are loaded already."""
    engine = side_by_side.SideBySideEngine("", side_by_side.SideBySideOptions(mu_sampling={}))
    engine._mu, engine._pi = load(**mu), load(**pi)
    return engine


@pytest.mark.gpu
def test_on_a_gpu_the_figures_are_those_of_main_memory(load: Load) -> None:
    """Triton's kernel where the logits are, against what is stored and compared in main memory."""
    requests = to_score(roll(load(device="cuda")))
    engine = pair_engine({"device": "cuda"}, {"device": "cuda", "dtype": "bfloat16"}, load)
    task = replace(ROLLOUT, kind="score")
    sides = [
        {each.sequence_id: each.observed for each in load(device="cuda", dtype=dtype).score(requests, task)}
        for dtype in ("float32", "bfloat16")
    ]
    for record in engine.score(requests, task):
        mu, pi = (side[record.sequence_id].full_logprobs_RV for side in sides)
        found = divergences(mu, pi, normalised=True)
        exact_FT = record.observed.exact_TF.T
        np.testing.assert_allclose(exact_FT[EXACT.index("tv")], found.tv, atol=1e-6)
        np.testing.assert_allclose(exact_FT[EXACT.index("kl")], found.kl, rtol=1e-4)


def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    def until_the_third(event: dict[str, Any]) -> None:
        if event["event"] == "sequence" and event["done"] == 3:
            raise Killed

    specs = "transformers:dtype=float32,batch_size=2", "transformers:batch_size=2"
    for name in ("calm", "killed"):
        (tmp_path / name).mkdir()
    calm, killed = (TwoSettings(tmp_path / name, model_path("dense"), *specs) for name in ("calm", "killed"))
    with pytest.raises(Killed):
        killed.side_by_side(until_the_third)
    parts = tmp_path / "killed" / "together" / "parts"
    kept = {path: path.stat().st_mtime_ns for path in finished_parts(parts).values()}
    assert len(kept) == 3
    scored: list[int] = []
    pair = killed.side_by_side(lambda event: scored.append(event.get("sequence_id", -1)))
    assert len([sequence_id for sequence_id in scored if sequence_id >= 0]) == 3, "the other three"
    assert pair.figures == calm.side_by_side().figures
    for name in ("together", "together-beside"):
        contents = [
            {file: data for file, data in files(tmp_path / run / name).items() if file.endswith(".parquet")}
            for run in ("calm", "killed")
        ]
        assert contents[0] == contents[1] and len(contents[0]) == 2
    events: list[dict[str, Any]] = []
    killed.side_by_side(events.append)
    assert events == [], "all of it is complete"


def test_the_other_way_round_there_are_no_figures(tmp_path: Path) -> None:
    """The figures are of μ against π, and of no other two traces."""
    two = TwoSettings(tmp_path, model_path("dense"), "transformers:dtype=float32", "transformers")
    pair = two.side_by_side()
    assert two.pair(pair.pi, pair.mu).figures.evidence == "sampled"


def test_figures_of_another_shape_are_refused(tmp_path: Path) -> None:
    from mismatchscope.records import Observed, SequenceRecord
    from mismatchscope.traces.packing import Packer

    token_ids = np.array([1, 2], dtype=np.int32)
    observed = Observed(np.zeros(2), exact_TF=np.zeros((2, 3)))
    with pytest.raises(TraceError, match="exact figures of another shape"), Packer(tmp_path) as packer:
        packer.add(SequenceRecord(0, 0, token_ids, token_ids, "stop", observed), observed)


def test_a_second_model_without_room_is_refused(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_free_bytes", lambda device: 1000)
    first = TransformersOptions(dtype="float32", device="cpu")
    engine = side_by_side.SideBySideEngine(
        str(models / "tiny"),
        side_by_side.SideBySideOptions(mu=vars(first), pi=vars(replace(first, dtype="bfloat16"))),
    )
    with pytest.raises(EngineError, match="two models do not fit side by side: the weights of the second need"):
        engine.load()


def test_equal_weights_are_in_memory_once(models: Path) -> None:
    networks = []
    for dtype in ("float32", "float32", "bfloat16"):
        engine = TransformersEngine(str(models / "tiny"), TransformersOptions(dtype=dtype, device="cpu"))
        engine.load()
        networks.append(engine.network)
    with torch.no_grad():
        next(iter(networks[1].model.layers[0].parameters())).add_(1.0)
    for second in networks[1:]:
        room.share_weights(networks[0], second)
    pointers = [[parameter.data_ptr() for parameter in network.parameters()] for network in networks]
    shared = [sum(a == b for a, b in zip(pointers[0], other, strict=True)) for other in pointers[1:]]
    assert shared == [len(pointers[0]) - 1, 0], "but for the one that differs, and none of another dtype"


def test_the_trace_beside_has_a_place_of_its_own(tmp_path: Path) -> None:
    assert beside_path_of(tmp_path / "ab") == tmp_path / "ab-beside"
