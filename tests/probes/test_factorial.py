"""Designs of `attribute`: their algebra against whole tables of signs, and planted effects in a fraction of them.

Shapes: R runs, K changes.
"""

from __future__ import annotations

import functools
import itertools
from pathlib import Path

import numpy as np
import pytest
from in_process import run_here
from many_options_engine import HARMLESS
from probe_runs import codes, probed, settings

from mismatchscope.collection.collector import Collector
from mismatchscope.config import load_settings
from mismatchscope.engines import registry
from mismatchscope.errors import ConfigError
from mismatchscope.probes import run_probe as running
from mismatchscope.probes.factorial import Factorial
from mismatchscope.reports.document import Report


def signs_RK(design: Factorial[int]) -> np.ndarray:
    changes = design.changes
    return np.array([[1 if change in made else -1 for change in changes] for made in design.combinations()])


def shortest_word(signs: np.ndarray) -> int | None:
    """Letters of the shortest product of changes that has one sign in all runs, up to seven."""
    runs, changes = signs.shape
    for letters in range(1, min(changes, 7) + 1):
        for word in itertools.combinations(range(changes), letters):
            if abs(signs[:, word].prod(axis=1).sum()) == runs:
                return letters
    return None


@pytest.mark.parametrize("changes", [1, 2, 3, 5, 6, 7, 8, 11, 16, 17, 20])
def test_a_design_is_orthogonal_and_has_the_resolution_that_it_says(changes: int) -> None:
    design = Factorial.of(list(range(changes)))
    signs = signs_RK(design)
    runs = len(signs)
    assert runs == (2**changes if changes <= 5 else 32 if changes <= 16 else 64)
    assert len({tuple(row) for row in signs.tolist()}) == runs
    assert (signs[0] == -1).all() and (signs[-1] == 1).all(), "from no change to all of them"
    assert (signs.T @ signs == runs * np.eye(changes)).all()
    assert design.resolution == shortest_word(signs)
    for change, product in design.generators.items():
        assert (signs[:, change] == signs[:, product].prod(axis=1)).all()


@pytest.mark.parametrize("changes", [3, 6, 9, 16])
def test_effects_of_known_size_are_found_again(changes: int) -> None:
    """Of gaps that are sums of effects of one and two changes."""
    rng = np.random.default_rng(changes)
    design = Factorial.of(list(range(changes)))
    signs = signs_RK(design)
    single, (one, other) = rng.normal(size=changes), (0, changes - 1)
    gap_R = 7.0 - signs @ single - 0.3 * signs[:, one] * signs[:, other]
    gaps = dict(zip(map(frozenset, design.combinations()), gap_R, strict=True))

    def told(weights: dict[frozenset[int], float]) -> float:
        return sum(weight * gaps[made] for made, weight in weights.items())

    for change in range(changes):
        assert told(design.taken_away(change)) == pytest.approx(2 * single[change], abs=1e-12)
    for confounded, weights in design.together():
        expected = 1.2 if (one, other) in confounded else 0.0
        assert told(weights) == pytest.approx(expected, abs=1e-12)


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine `many`, and no process for any engine."""
    monkeypatch.setitem(registry.ENGINES, "many", "many_options_engine:ManyOptionsEngine")
    monkeypatch.setattr(running, "Collector", functools.partial(Collector, run=run_here))


def spec(*planted: str, harmless: int = 20) -> str:
    return f"many:{','.join([*(f'{name}=1' for name in HARMLESS[:harmless]), *planted])}"


def sentences(report: Report) -> dict[str, str]:
    assert report.probe is not None
    return {each.code: each.sentence for each in report.probe.conclusion}


@pytest.mark.slow
@pytest.mark.usefixtures("many")
def test_planted_settings_come_in_their_order_in_a_fraction_of_the_combinations(tmp_path: Path) -> None:
    behavior = spec("tv=0.25", "epsilon=0.1", "leak=0.005", "noise=0.01", harmless=4)
    asked = {"behavior": f"{behavior},unreachable=1", "reference": "many:unreachable=1", "limit": 12}
    report, _ = probed("attribute", tmp_path / "run", **asked)
    assert report.probe is not None and report.probe.design is not None
    design = report.probe.design
    assert (design.settings, design.combinations, design.resolution) == (9, 32, 4)
    assert len(report.probe.cells) == 32 and len(design.generators) == 4
    changes = [effect.change.partition("=")[0] for effect in report.probe.effects]
    assert changes[:3] == ["tv", "epsilon", "leak"] and changes[-1] == "rest"
    whole = report.alpha1.mean.value
    assert sum(effect.tv.value for effect in report.probe.effects) == pytest.approx(whole, rel=1e-9)
    told = sentences(report)
    assert "32 of 512 combinations were run (resolution IV)" in told["fraction"]
    assert all(f"harmless_{number}" not in told["shares"].partition("; not told")[0] for number in range(4))


@pytest.mark.slow
@pytest.mark.usefixtures("many")
def test_effects_that_do_not_add_up_are_said(tmp_path: Path) -> None:
    """Two perturbations of one size and direction: either alone leaves most of the gap."""
    report, _ = probed(
        "attribute", tmp_path / "run", behavior="many:tv=0.2,epsilon=0.5", reference="many", limit=12
    )
    assert report.probe is not None
    first = report.probe.interactions[0]
    assert first.changes == "tv=0.0 and epsilon=0.0" or first.changes == "epsilon=0.0 and tv=0.0"
    assert first.tv.excludes(0) and "do_not_add_up" in codes(report)
    assert first.changes in sentences(report)["do_not_add_up"]


@pytest.mark.slow
@pytest.mark.usefixtures("many")
@pytest.mark.parametrize("planted", [("tv=0.2",), ("tv=0.2", "epsilon=0.6")])
def test_planted_settings_are_found_among_twenty_that_are_harmless(
    planted: tuple[str, ...], tmp_path: Path
) -> None:
    report, _ = probed("bisect", tmp_path / "run", behavior=spec(*planted), reference="many", limit=12)
    sentence = sentences(report)["closed_by"]
    named = sentence.partition(":")[0].removeprefix("Set ").split(", ")
    assert set(named) == {f"{each.partition('=')[0]}=0.0" for each in planted}
    assert report.probe is not None and len(report.probe.cells) <= 2 + 12 * len(planted)


def test_changes_are_described_in_the_file_of_the_run(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(
        'behavior = "synthetic:tv=0.2,epsilon=0.1"\nreference = "synthetic"\n'
        '[probe]\ntime = "1h"\n[probe.changes]\nerrors = { tv = 0.0, epsilon = 0.0 }\npath = "prefill"\n'
    )
    asked = load_settings(tmp_path / "run.toml", {}, [])
    assert asked.probe.changed_options == {"errors": {"tv": "0.0", "epsilon": "0.0"}, "path": {"path": "prefill"}}
    plan = running.plan_probe("attribute", asked).plan
    assert [each.setting.label for each in plan.comparisons] == [
        "as given",
        "path=prefill",
        "errors",
        "everything changed",
    ]
    with pytest.raises(ConfigError, match="takes no changes by name"):
        running.plan_probe("batch", asked)


@pytest.mark.parametrize("changes", [{"errors": {}}, {"": 1}])
def test_changes_that_change_nothing_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="changes nothing"):
        settings(probe={"changes": changes})
