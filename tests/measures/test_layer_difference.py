"""Differences of stages against sums over single tokens, and what is said of them on planted ones."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mismatchscope.measures.layer_difference import (
    BEYOND,
    COLUMNS,
    ROUNDING,
    LayerSums,
    Output,
    Place,
    cosine,
    held_in,
    relative_error,
)
from mismatchscope.measures.layer_results import Internals
from mismatchscope.measures.tensor_difference import cast

PLACES = {
    "embedding": Place("embedding"),
    **{f"layers.{n}.mlp": Place("mlp", None) for n in range(4)},
    "logits": Place("logits", "embedding"),
}


def measured(
    outputs: dict[str, tuple[np.ndarray, ...]], dtype: str = "bfloat16", dtypes: dict[str, str] | None = None
) -> Internals:
    """Of one sequence a stage: the reference's, the behaviour's and, if there, the swapped one, all [C, T, H]."""
    sums = LayerSums(PLACES)
    first = next(iter(outputs.values()))[0]
    for sequence in range(len(first)):
        row = sums.begin(sequence, first.shape[1])
        for stage, sides in outputs.items():
            names = dtype, (dtypes or {}).get(stage, dtype), dtype
            sums.add(row, stage, *(Output(side[sequence], name) for side, name in zip(sides, names, strict=False)))
    return sums.result(["embedding"])


def noise(created: float, seed: int = 0, shape: tuple[int, ...] = (4, 20, 64)) -> tuple[np.ndarray, ...]:
    """A reference, a behaviour and the reference on its input, such that the behaviour creates so much."""
    rng = np.random.default_rng(seed)
    reference = rng.standard_normal(shape)
    swapped = reference * (1 + 0.01 * rng.standard_normal(shape))
    return reference, swapped * (1 + created * rng.standard_normal(shape)), swapped


def test_the_figures_are_those_of_single_tokens() -> None:
    a, b, c = noise(0.02)
    found = measured({"embedding": (a, b, c)}).stage("embedding")
    errors, created, carried, cosines = [], [], [], []
    for x, y, z in zip(a.reshape(-1, 64), b.reshape(-1, 64), c.reshape(-1, 64), strict=True):
        errors.append(math.dist(x, y) / math.hypot(*x))
        created.append(math.dist(y, z) / math.hypot(*y))
        carried.append(math.dist(x, z) / math.hypot(*x))
        cosines.append(math.fsum(x * y) / (math.hypot(*x) * math.hypot(*y)))
    assert found.error.value == pytest.approx(np.mean(errors), rel=1e-12)
    assert found.created is not None and found.carried is not None
    assert found.created.value == pytest.approx(np.mean(created), rel=1e-12)
    assert found.carried.value == pytest.approx(np.mean(carried), rel=1e-12)
    assert found.cosine == pytest.approx(np.mean(cosines), rel=1e-12)
    assert found.created_first == pytest.approx(np.mean(created[::20]), rel=1e-12)
    assert found.max_abs == np.abs(a - b).max() and found.same == 0.0
    assert (found.error.n, found.error.clusters) == (80, 4)
    assert found.error.low < found.error.value < found.error.high


@given(
    hnp.arrays(np.float32, (3, 5), elements=st.floats(-1e3, 1e3, width=32)),
    hnp.arrays(np.float32, (3, 5), elements=st.floats(-1e3, 1e3, width=32)),
    st.floats(0.01, 100),
)
def test_errors_are_relative(a: np.ndarray, b: np.ndarray, scale: float) -> None:
    a, b = a.astype(float), b.astype(float)
    once, scaled = relative_error(a, b - a), relative_error(a * scale, (b - a) * scale)
    np.testing.assert_allclose(once, scaled, rtol=1e-9)
    angle = cosine(a, b)
    assert (np.abs(angle[np.isfinite(angle)]) <= 1 + 1e-9).all()
    assert (relative_error(a, a - a) == 0).all()


def test_identical_sides_say_so() -> None:
    a, _, _ = noise(0)
    found = measured({"embedding": (a, a), "logits": (a, a)})
    assert (found.same_prefix, found.first_difference) == (2, None)
    assert found.stage("logits").error.value == 0 and found.stage("logits").same == 1
    assert found.stage("logits").created is None and found.stage("logits").stands_out is None


def test_the_first_stage_that_differs_by_a_bit() -> None:
    a, _, _ = noise(0)
    b = a.copy()
    b[2, 7, 3] = np.nextafter(b[2, 7, 3], 10)
    found = measured({"embedding": (a, a), "layers.0.mlp": (a, b), "logits": (a, b)})
    assert (found.same_prefix, found.first_difference) == (1, "layers.0.mlp")
    assert found.stage("layers.0.mlp").same == 1 - 1 / a.size


@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize("times", [0.5, 2.0])
def test_more_than_rounding_stands_out(dtype: str, times: float) -> None:
    unit = ROUNDING[dtype] * BEYOND[dtype]
    sides = {f"layers.{n}.mlp": noise(unit * times, seed=n) for n in range(4)}
    found = measured(sides, dtype)
    expected = "beyond_rounding" if times > 1 else None
    assert {stage.stands_out for stage in found.stages} == {expected}
    assert all(0.8 < stage.times_others < 1.25 for stage in found.stages)
    assert found.stages[0].times_rounding == pytest.approx(BEYOND[dtype] * times, rel=0.05)


def test_one_layer_among_others_that_are_alike() -> None:
    unit = ROUNDING["bfloat16"]
    quiet = {f"layers.{n}.mlp": noise(0.5 * unit, seed=n) for n in range(3)}
    found = measured(quiet | {"layers.3.mlp": noise(3 * unit)})
    assert [stage.stands_out for stage in found.stages] == [None, None, None, "among_its_kind"]
    below = measured(quiet | {"layers.3.mlp": noise(0.9 * unit), "layers.0.mlp": noise(0.1 * unit)})
    assert {stage.stands_out for stage in below.stages} == {None}, "less than a rounding is no fault"
    alone = measured({"layers.0.mlp": noise(0.5 * unit), "layers.3.mlp": noise(3 * unit)})
    assert {stage.stands_out for stage in alone.stages} == {None}, "two are too few to say which is odd"


def test_a_head_in_another_precision_than_its_states() -> None:
    states = noise(0.0)
    exact = states[2]
    rounded = cast(exact.astype(np.float32), "bfloat16")
    sides = {"embedding": (exact, exact, exact), "logits": (exact, rounded, exact)}
    found = measured(sides, "float32", {"logits": "bfloat16"})
    head = found.stage("logits")
    assert (head.dtype, head.reference_dtype, head.stands_out) == ("bfloat16", "float32", "other_dtype")
    assert 0.2 < head.times_rounding < 1


def test_values_that_were_cast_up_count_as_what_they_were() -> None:
    values = np.random.default_rng(0).standard_normal((3, 8)).astype(np.float32)
    assert held_in(Output(values, "float32")) == "float32"
    assert held_in(Output(cast(values, "bfloat16"), "float32")) == "bfloat16"
    assert held_in(Output(values, "float64")) == "float64"


def test_what_is_no_number_is_counted_and_left_out() -> None:
    a, b, c = noise(0.02)
    b = b.copy()
    b[1, 3, 5], b[1, 4, 0] = np.nan, np.inf
    found = measured({"embedding": (a, b, c)}).stage("embedding")
    assert found.not_finite == 2 and found.error.n == 78 and math.isfinite(found.error.value)


def test_a_token_that_is_zero_on_one_side_has_no_relative_error() -> None:
    a, b = np.zeros((1, 3, 4)), np.zeros((1, 3, 4))
    b[0, 1], b[0, 2], a[0, 2] = 1, 1, 1
    found = measured({"embedding": (a, b)}).stage("embedding")
    assert (found.error.n, found.error.value, found.cosine) == (2, 0.0, 1.0)


def test_the_heat_map_goes_by_position() -> None:
    a = np.ones((2, 3 * COLUMNS, 4))
    b = a.copy()
    b[:, 10:] = 1.5
    found = measured({"embedding": (a, b)})
    assert found.positions == tuple(range(0, 3 * COLUMNS, 3))
    [row] = found.heat
    assert row.errors[:3] == (0, 0, 0) and row.errors[3] == pytest.approx(1 / 3) and row.errors[4:] == (0.5,) * 44
