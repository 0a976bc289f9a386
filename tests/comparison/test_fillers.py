"""Values that stand where no log-prob was recorded: named with their place, and not seen in sound columns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from written_traces import sampled_trace

from mismatchscope.comparison.compare_traces import compare
from mismatchscope.records import Transforms
from mismatchscope.reports.document import Alarm

S, T = 12, 40
_RNG = np.random.default_rng(5)
MU_ST = np.float32(-_RNG.exponential(1.0, (S, T)) - 0.06).astype(np.float64)
PI_ST = np.float32(MU_ST + _RNG.normal(0, 0.01, (S, T))).astype(np.float64)


def alarms(directory: Path, mu_ST: np.ndarray, pi_ST: np.ndarray, **manifest: object) -> list[Alarm]:
    mu = sampled_trace(directory / "mu", mu_ST, **manifest)
    found = compare(mu, sampled_trace(directory / "pi", pi_ST, role="reference"))
    return [alarm for alarm in found.alarms if alarm.code in ("filler", "rounded_logprobs")]


def changed(logp_ST: np.ndarray, rows: dict[tuple[int, int, int], float]) -> np.ndarray:
    logp_ST = logp_ST.copy()
    for (s, begin, end), value in rows.items():
        logp_ST[s, begin:end] = value
    return logp_ST


def test_sound_columns_raise_no_alarm(tmp_path: Path) -> None:
    assert alarms(tmp_path, MU_ST, PI_ST) == []


@pytest.mark.parametrize(("side", "other"), [("behaviour", "reference"), ("reference", "behaviour")])
def test_runs_of_zeros_are_named_with_their_place(tmp_path: Path, side: str, other: str) -> None:
    """A run of three is none; one that the other side gives 0 too is not counted as clearly below."""
    filled = {(3, 10, 22): 0.0, (7, 0, 6): 0.0, (1, 4, 7): 0.0}
    columns = [MU_ST, PI_ST]
    columns[side == "reference"] = changed(columns[side == "reference"], filled)
    (alarm,) = alarms(tmp_path, *columns)
    assert alarm.severity == "error"
    assert alarm.message == (
        f"18 of the 480 log-probs of the {side} (3.75 %) are exactly 0 in 2 runs within a response, while the "
        f"{other} is below -0.05 at 18 of these rows; the first is position 10 of sequence 3. Values that were "
        "filled in look like this."
    )
    assert alarm.evidence == {
        "kind": "zeros",
        "side": side,
        "rows": 18,
        "share": 18 / 480,
        "sequence_id": 3,
        "position": 10,
    }


def test_zeros_that_both_sides_have_are_certain_tokens(tmp_path: Path) -> None:
    certain = {(3, 10, 22): 0.0, (7, 0, 6): 0.0}
    assert alarms(tmp_path, changed(MU_ST, certain), changed(PI_ST, certain)) == []


def test_single_zeros_are_no_run(tmp_path: Path) -> None:
    assert alarms(tmp_path, np.where(np.arange(T) % 4 == 0, 0.0, MU_ST), PI_ST) == []


def test_a_run_ends_with_its_response(tmp_path: Path) -> None:
    """Two rows at the end of one response and two at the beginning of the next."""
    filled = {(3, T - 2, T): 0.0, (4, 0, 2): 0.0}
    assert alarms(tmp_path, changed(MU_ST, filled), PI_ST) == []


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [(None, 0), (Transforms(temperature=0.0), 0), (Transforms(top_p=0.9), 0), (Transforms(), 1)],
)
def test_a_greedy_or_truncating_sampler_writes_zeros(
    tmp_path: Path, sampling: Transforms | None, expected: int
) -> None:
    """Unless the manifest excludes it, a column of zeros may be such a sampler's own."""
    policy = {"policy": "processed", "sampling": sampling, "temperature": None}
    mu = sampled_trace(tmp_path / "mu", np.zeros((S, T)), **policy)
    pi = sampled_trace(tmp_path / "pi", PI_ST, role="reference", **policy)
    codes = [alarm.code for alarm in compare(mu, pi).alarms]
    assert codes.count("filler") == expected


def test_whole_numbers_far_below_zero(tmp_path: Path) -> None:
    (alarm,) = alarms(tmp_path, MU_ST, changed(PI_ST, {(2, 5, 6): -9999.0, (9, 1, 2): -100.0}))
    assert (
        "2 of the 480 log-probs of the reference (0.417 %) are whole numbers below -20 (-9999 to -100)"
        in alarm.message
    )
    assert "the first is position 5 of sequence 2" in alarm.message
    (single,) = alarms(tmp_path / "single", MU_ST, changed(PI_ST, {(2, 5, 6): -100.0}))
    assert "1 of the 480 log-probs of the reference (0.208 %) is a whole number below -20 (-100)" in single.message
    fraction = changed(PI_ST, {(2, 5, 6): -25.3, (9, 1, 2): -31.7, (9, 2, 3): -29.0})
    assert alarms(tmp_path / "measured", MU_ST, fraction) == []


def test_one_value_to_the_end_of_many_responses(tmp_path: Path) -> None:
    tails = {(s, T - 8 - s, T): -11.93 for s in (2, 5, 6)}
    (alarm,) = alarms(tmp_path, MU_ST, changed(PI_ST, tails))
    assert "37 of the 480 log-probs" in alarm.message and "to the end of 3 responses" in alarm.message
    assert (alarm.evidence["sequence_id"], alarm.evidence["position"]) == (2, 30)
    del tails[2, 30, T]
    assert alarms(tmp_path / "two", MU_ST, changed(PI_ST, tails)) == []
    both = [changed(logp_ST, {(s, 20, T): -0.5 for s in range(S)}) for logp_ST in (MU_ST, PI_ST)]
    assert alarms(tmp_path / "both", *both) == []


@pytest.mark.parametrize(("bits", "name"), [(8, "bfloat16"), (11, "float16")])
def test_a_column_in_less_precision_is_a_remark(
    tmp_path: Path, bits: int, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On one side: where both are, it is what both measure."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    from calibration_fillers import rounded

    (alarm,) = alarms(tmp_path / "one", MU_ST, rounded(PI_ST, bits))
    assert (alarm.code, alarm.severity) == ("rounded_logprobs", "warning")
    assert (
        f"of the reference's log-probs below -0.016 fit {bits} significant bits, as many as {name} has"
        in alarm.message
    )
    assert alarms(tmp_path / "both", rounded(MU_ST, bits), rounded(PI_ST, bits)) == []


@pytest.mark.slow
def test_sound_columns_are_let_pass_and_fillers_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """300 audits of sound columns in all; the committed table is benchmarks/results/calibration_fillers.md."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    from calibration_fillers import DESIGNS, simulate

    sound = [name for name, design in DESIGNS.items() if design.kind is None]
    rows = [simulate(name, 43, seed=1) for name in sound]
    assert len(rows) * 43 >= 300
    assert max(row.filler for row in rows) <= 0.01
    planted = [simulate(name, 20, seed=1) for name in DESIGNS if name not in sound]
    assert min(row.right for row in planted if row.right is not None) >= 0.9
