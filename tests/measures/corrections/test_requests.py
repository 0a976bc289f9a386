"""What a person may ask for, what it then does, and the sentences for what is no correction."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from mismatchscope.errors import UsageError
from mismatchscope.measures.corrections import Corrections, RatioBlock
from mismatchscope.measures.corrections.catalogue import RULES
from mismatchscope.measures.corrections.presets import PRESETS, TRAINERS
from mismatchscope.measures.corrections.requests import settings_asked

RNG = np.random.default_rng(0)
LENGTH, SEQUENCES = 12, 300
D = RNG.standard_t(3, LENGTH * SEQUENCES) * np.repeat(10 ** RNG.uniform(-5, -0.5, SEQUENCES), LENGTH)
MU = -RNG.uniform(0.1, 3, D.size)
D = np.minimum(D, -MU / 2)


def block() -> RatioBlock:
    return RatioBlock(
        D,
        np.arange(0, D.size + 1, LENGTH),
        target_log_ratio_T=np.zeros(D.size),
        advantage_T=np.repeat(RNG.choice([-1.0, 1.0], SEQUENCES), LENGTH),
        logp_mu_T=MU,
    )


def measured(text: str):
    corrections = Corrections(settings_asked(text))
    corrections.add(block())
    return corrections.results()


def test_a_rule_takes_the_thresholds_that_are_given_and_the_usual_ones_else() -> None:
    (found,) = measured("icepop:low=0.9")
    assert found.parameters == {"low": 0.9, "high": 5.0}
    ratio = np.exp(D)
    assert found.kept_tokens == pytest.approx(np.mean((ratio >= 0.9) & (ratio <= 5)))
    (found,) = measured("token_tis:cap=1.5,low=0.5")
    assert found.mean_weight == pytest.approx(np.clip(ratio, 0.5, 1.5).mean())


@pytest.mark.parametrize("name", RULES)
def test_every_rule_can_be_asked_for_by_its_name_alone(name: str) -> None:
    (setting,) = settings_asked(name)
    assert dict(setting.parameters) == RULES[name].usual[0]


def test_the_rule_of_whole_batches_can_be_asked_for_too() -> None:
    assert [
        dict(setting.parameters) for text in ("m2po", "m2po:threshold=0.1") for setting in settings_asked(text)
    ] == [
        {"threshold": 0.04},
        {"threshold": 0.1},
    ]
    with pytest.raises(UsageError, match="m2po has no threshold 'cap'") as caught:
        settings_asked("m2po:cap=1")
    assert caught.value.hint == "it has threshold, as in m2po:threshold=0.04"


def test_a_trainer_has_all_its_presets_and_each_can_be_asked_for() -> None:
    assert {
        "verl",
        "trl",
        "slime",
        "miles",
        "skyrl",
        "nemo_rl",
        "prime_rl",
        "openrlhf",
        "areal",
        "torchtitan",
    } == set(TRAINERS)
    for trainer in TRAINERS:
        assert [s.name for s in settings_asked(trainer)] == [p.key for p in PRESETS if p.trainer == trainer]
    for preset in PRESETS:
        (setting,) = settings_asked(preset.key)
        assert pickle.loads(pickle.dumps(setting)).name == preset.key
        assert preset.version and preset.source


TOKEN, SEQUENCE = np.exp(D), np.exp(D.reshape(SEQUENCES, LENGTH).sum(axis=1))
GEOMETRIC = SEQUENCE ** (1 / LENGTH)


def by_token(keep_S: np.ndarray) -> np.ndarray:
    return np.repeat(keep_S, LENGTH)


@pytest.mark.parametrize(
    ("name", "weight"),
    [
        ("verl.decoupled_token_is", np.minimum(TOKEN, 2)),
        ("verl.decoupled_seq_is_rs", np.where((SEQUENCE >= 0.5) & (SEQUENCE <= 2), np.minimum(SEQUENCE, 2), 0)),
        ("verl.decoupled_geo_rs", ((GEOMETRIC >= 1 / 1.001) & (GEOMETRIC <= 1 / 0.999)) * 1.0),
        ("verl.decoupled_token_icepop", np.where((TOKEN >= 0.5) & (TOKEN <= 5), TOKEN, 0)),
        ("trl.sequence_mask", np.where(SEQUENCE <= 3, SEQUENCE, 0)),
        ("nemo_rl.seq_mask_tis", np.where(by_token((GEOMETRIC >= 0.999) & (GEOMETRIC <= 1.002)), TOKEN, 0)),
        ("openrlhf.tis", np.clip(TOKEN, 0.5, 5)),
        ("skyrl.product_mask", ((SEQUENCE >= 0.5) & (SEQUENCE <= 2)) * 1.0),
        ("skyrl.token_mask", ((TOKEN >= 0.5) & (TOKEN <= 2)) * 1.0),
        ("areal.rejection_sampling", np.where(TOKEN <= 5, TOKEN, 0)),
        (
            "slime.mis",
            np.where(
                (TOKEN >= 0.5) & (TOKEN <= 2) & by_token(TOKEN.reshape(SEQUENCES, -1).min(1) >= 1e-4), TOKEN, 0
            ),
        ),
        ("prime_rl.ipo", np.where(np.abs(np.exp(MU) * (TOKEN - 1)) <= 0.1, TOKEN, 0)),
    ],
)
def test_presets_weight_as_the_trainer_does(name: str, weight: np.ndarray) -> None:
    (found,) = measured(name)
    assert found.mean_weight == pytest.approx(weight.mean())
    assert found.kept_tokens == pytest.approx(np.mean(weight > 0))
    assert found.ess_fraction == pytest.approx(weight.sum() ** 2 / (weight**2).sum() / weight.size)


def test_a_band_on_the_negative_logarithm_is_said_to_be_one() -> None:
    (found,) = measured("verl.decoupled_geo_rs")
    assert "−log ρ" in found.remark


@pytest.mark.parametrize(
    ("text", "sentence", "hint"),
    [
        ("icpop", "no correction 'icpop'", "did you mean icepop"),
        ("zzz", "no correction 'zzz'", "rules: token_tis"),
        ("icepop:cap=2", "has no threshold 'cap'", "icepop:low=0.5,high=5"),
        ("icepop:low", "has no threshold 'low'", "icepop:low=0.5"),
        ("icepop:low=a", "is a positive number, not 'a'", "icepop:low=0.5"),
        ("icepop:low=-1", "is a positive number, not '-1'", "icepop"),
        ("token_tis:cap=0", "is a positive number, not '0'", "token_tis:cap=2"),
        ("token_tis:cap=inf", "is a positive number", "token_tis:cap=2"),
        ("icepop:low=1,low=2", "has the threshold low twice", "once"),
        ("icepop:low=5,high=0.5", "band of icepop is empty", "not on its negative logarithm"),
        ("verl.decoupled_geo_rs:low=1", "takes no others", "give them to a rule"),
        ("", "no correction ''", "rules"),
    ],
)
def test_what_is_no_correction_is_refused(text: str, sentence: str, hint: str) -> None:
    with pytest.raises(UsageError, match=r"correction|threshold|band|preset") as caught:
        settings_asked(text)
    assert sentence in str(caught.value)
    assert hint in caught.value.hint
