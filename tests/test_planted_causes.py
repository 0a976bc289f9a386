"""The generator of planted cases: it plants what it says, nothing where it says nothing, and the same again."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

MODULES = (
    *("answers", "bench", "cases", "draws", "experiments", "levels", "plants", "scoring", "store", "tables"),
    "workshop",
)


@pytest.fixture(scope="module")
def made() -> Any:
    """The modules of the benchmark, which makes a few short responses here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks" / "causes"))
        modules = SimpleNamespace(**{name: importlib.import_module(name) for name in MODULES})
        patch.setattr(modules.draws, "NEW_TOKENS", 24)
        for name, value in (
            ("POOL_PROMPTS", 6),
            ("SEQUENCES", 6),
            ("SAMPLER_SEQUENCES", 6),
            ("FLOOR_SEQUENCES", 4),
        ):
            patch.setattr(modules.workshop, name, value)
        patch.setattr(modules.workshop, "POOL_SAMPLES", 1)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        yield modules
        torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def exact(made: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return made.workshop.Workshop("development", "dense", "fp32", tmp_path_factory.mktemp("causes"))


def case(made: Any, workshop: Any, plant: str, number: int = 0) -> Any:
    (only,) = workshop.make([made.cases.Key("development", "dense", workshop.stack, plant, number)])
    return only


@pytest.mark.slow
def test_a_planted_temperature_is_that_temperature(made: Any, exact: Any) -> None:
    planted = case(made, exact, "temperature of the trainer")
    full, temperature = planted.evidence.full, planted.truth.detail["temperature"]
    cooled_MV = full.logp_mu_MV / temperature
    cooled_MV -= np.log(np.exp(cooled_MV.astype(np.float64)).sum(1, keepdims=True))
    np.testing.assert_allclose(full.logp_pi_MV, cooled_MV, atol=2e-4)
    assert planted.truth.causes == (("temperature",),)


@pytest.mark.slow
@pytest.mark.parametrize("stack", ["fp32", "bf16"])
def test_a_pair_without_a_fault_is_at_its_floor(made: Any, exact: Any, tmp_path: Path, stack: str) -> None:
    workshop = exact if stack == "fp32" else made.workshop.Workshop("development", "dense", stack, tmp_path)
    for number in range(3):
        sound = case(made, workshop, made.cases.CONTROL, number)
        assert sound.truth.hidden and sound.truth.causes == ()
        assert 0.5 < sound.truth.severity < 1.5
        assert set(sound.evidence.metadata) >= {"worker", "lag", "step"}, "a sound log tells as much"


@pytest.mark.slow
def test_a_shifted_column_fits_when_it_is_moved_back(made: Any, exact: Any) -> None:
    planted = case(made, exact, "off by one")
    mu_N, pi_N, sequence_N = (getattr(planted.evidence, name) for name in ("logp_mu_N", "logp_pi_N", "sequence_N"))
    moved = []
    for sequence in np.unique(sequence_N):
        mu, pi = mu_N[sequence_N == sequence], pi_N[sequence_N == sequence]
        gaps = [np.abs(mu[max(0, -s) : len(mu) - max(0, s)] - pi[max(0, s) : len(pi) + min(0, s)]).mean() for s in
                (-2, -1, 0, 1, 2)]  # fmt: skip
        moved.append(int(np.argmin(gaps)) != 2)
        assert min(gaps) < 1e-4
    assert any(moved)


@pytest.mark.slow
def test_tokens_under_top_p_are_drawn_from_what_it_keeps(made: Any, exact: Any) -> None:
    planted = case(made, exact, "top-p")
    kept_M = np.isfinite(planted.evidence.full.logp_mu_MV).sum(1)
    assert (kept_M < 1024).any()
    np.testing.assert_allclose(np.exp(planted.evidence.full.logp_mu_MV.astype(np.float64)).sum(1), 1, atol=1e-4)
    assert (planted.evidence.logp_pi_N <= planted.evidence.logp_mu_N + 1e-4).all(), "π has mass that μ has not"


@pytest.mark.slow
def test_a_case_follows_from_its_key(made: Any, exact: Any, tmp_path: Path) -> None:
    first, second = case(made, exact, "soft cap"), case(made, exact, "soft cap")
    other = case(made, exact, "soft cap", 1)
    np.testing.assert_array_equal(first.evidence.logp_pi_N, second.evidence.logp_pi_N)
    assert first.truth == second.truth != other.truth
    made.store.write(first.key, first.evidence, first.truth, tmp_path)
    evidence, truth = made.store.read(first.key, tmp_path)
    np.testing.assert_array_equal(evidence.logp_pi_N, first.evidence.logp_pi_N)
    assert truth == first.truth and evidence.floor == first.evidence.floor


@pytest.mark.slow
@pytest.mark.parametrize(
    ("plant", "results"),
    [
        ("stale head", {"weights": "head", "context": "stays", "rescore": "none"}),
        ("rows of the vocabulary", {"weights": "rows"}),
        ("rope base", {"weights": "same", "context": "vanishes", "rescore": "rope"}),
        ("attention scale", {"rescore": "attention_scale"}),
        ("norm epsilon", {"context": "stays", "rescore": "norm"}),
        ("BOS on one side", {"rescore": "context"}),
        ("dropout", {"repeat": "same_batches", "path": "none"}),
        ("fp8 cache", {"path": "most", "alone": "none"}),
        ("packing without a mask", {"alone": "most", "repeat": "none"}),
    ],
)
def test_experiments_find_of_a_plant_what_it_does(
    made: Any, exact: Any, plant: str, results: dict[str, str]
) -> None:
    key = made.cases.Key("development", "dense", "fp32", plant, 0)
    floor = case(made, exact, plant).evidence.floor
    experiments = made.experiments.Experiments(exact, exact.planted(key), floor)
    assert {name: experiments.result(name) for name in results} == results
    assert set(results) <= set(made.experiments.possible(made.plants.PLANTS[plant]))


def test_the_parts_have_nothing_in_common(made: Any) -> None:
    development, held_out = (set(made.cases.keys(part, 2)) for part in ("development", "held-out"))
    assert {key.seed for key in development}.isdisjoint(key.seed for key in held_out)
    assert {key.stack for key in held_out} - {key.stack for key in development} == {made.cases.HELD_OUT_STACK}
    assert {key.model for key in held_out} - {key.model for key in development} == {made.cases.HELD_OUT_MODEL}


def test_every_planted_cause_is_in_the_catalogue(made: Any) -> None:
    from mismatchscope.diagnosis.catalogue import causes

    assert {code for plant in made.plants.PLANTS.values() for code in plant.cause} <= set(causes())


def test_points_follow_the_protocol(made: Any) -> None:
    scoring, key = made.scoring, made.cases.Key("development", "dense", "bf16", "top-p", 0)
    Said, Truth = scoring.Said, made.cases.Truth
    fault, sound = Truth((("truncation",),), 10.0), Truth((), 1.0)
    two = Truth((("truncation",), ("filler",)), 10.0)
    for truth, said, outcome, points in [
        (fault, Said(causes=(("truncation",),), fault=True), "right alone", 1),
        (fault, Said(causes=(("truncation", "temperature"),), fault=True), "right set", 0.5),
        (fault, Said(fault=True), "cannot tell", 0),
        (fault, Said(causes=(("temperature",),), fault=True), "wrong", -1),
        (fault, Said(causes=(("truncation",), ("filler",)), fault=True), "wrong", -1),
        (fault, Said(rounding=True), "wrong", -1),
        (two, Said(causes=(("truncation",), ("filler",)), fault=True), "right alone", 1),
        (two, Said(causes=(("truncation",),), fault=True), "right set", 0.5),
        (sound, Said(rounding=True), "right alone", 1),
        (sound, Said(causes=(("filler",),), fault=True), "called a fault", -2),
        (sound, Said(fault=True), "called a fault", -2),
        (sound, Said(), "cannot tell", 0),
    ]:
        scored = scoring.score(key, truth, "sampled", said)
        assert (scored.outcome, scored.points) == (outcome, points)


def test_what_is_not_reached_is_told(made: Any) -> None:
    scoring, key = made.scoring, made.cases.Key("held-out", "dense", "bf16", "top-p", 0)
    Said, truth = scoring.Said, made.cases.Truth((("truncation",),), 10.0)
    right = Said(causes=(("truncation",),), fault=True, confidence=0.99)
    wrong = Said(causes=(("temperature",),), fault=True, confidence=0.99)

    def rows(*said: Any) -> dict[str, str]:
        table = made.tables.against_bars([scoring.score(key, truth, "full", each) for each in said])
        cells = [line.split(" | ") for line in table.splitlines()[2:]]
        return {row[0].removeprefix("| "): row[-1].removesuffix(" |") for row in cells}

    reached = rows(right, right)
    assert reached["right alone, and full rows"] == reached["wrong, and full rows"] == "kept"
    missed = rows(right, wrong)
    assert missed["right alone, and full rows"] == missed["wrong, and full rows"] == "**missed**"
    assert missed["right where 99.0 % is stated on average, and full rows"] == "**missed**"
