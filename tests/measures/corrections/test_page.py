"""The page of the corrections has every rule, threshold and preset as the code has them."""

from __future__ import annotations

from pathlib import Path

from mismatchscope.measures.corrections.catalogue import RULES
from mismatchscope.measures.corrections.presets import PRESETS
from mismatchscope.measures.corrections.sweep_grids import SWEEPS

PAGE = (Path(__file__).parents[3] / "docs" / "corrections.md").read_text(encoding="utf-8")
ROWS = {row.split("|")[1].strip(" `"): row for row in PAGE.splitlines() if row.startswith("| `")}


def test_every_rule_is_there() -> None:
    for name, rule in RULES.items():
        row = ROWS[name].replace("\\|", "|")
        assert rule.formula in row and rule.source in row, name
        for usual in rule.usual:
            assert ", ".join(f"{key} {value:g}" for key, value in usual.items()) in row, name


def test_every_preset_is_there() -> None:
    for preset in PRESETS:
        row = ROWS[preset.key].replace("\\|", "|")
        assert preset.version in row and preset.source in row and (preset.remark or "") in row, preset.key


def test_every_sweep_is_there() -> None:
    sweeps = PAGE.partition("## Sweeps")[2].partition("## Over")[0]
    assert all(f"`{sweep.rule}`" in sweeps for sweep in SWEEPS)
