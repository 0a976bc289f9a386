"""What is said where settings did not do what they were asked to: nothing of what they were to be."""

from __future__ import annotations

from dataclasses import replace

import example_reports
import pytest

from mismatchscope.probes.registry import find_probe
from mismatchscope.reports.pair_fields import Probe, ProbeCell
from mismatchscope.reports.probe_section import place_in


def cells(**changes: str) -> list[ProbeCell]:
    """Two cells of one engine that differ, as far as they were measured."""
    probe = example_reports.probe().probe
    assert probe is not None
    return [replace(cell, **changes) for cell in probe.cells[1:3]]


@pytest.mark.parametrize("name", ["repeat", "batch", "path", "dtype", "kernel"])
def test_ignored_settings_bear_no_sentence_about_a_gap(name: str) -> None:
    conclude = find_probe(name).conclude
    assert conclude is not None
    for changes in ({"status": "ignored", "reason": "asked for more"}, {"status": "failed", "pair": None}):
        said = conclude(cells(**changes), [])
        assert said and not any(word in each.sentence for each in said for word in ("TV", "identical", "same bits"))


def test_two_sides_of_one_engine_and_path_are_told_apart() -> None:
    first, second = cells(path="prefill")
    both = [replace(first, side="behavior"), replace(second, side="reference")]
    conclude = find_probe("kernel").conclude
    assert conclude is not None
    said = [each.sentence for each in conclude(both, [])]
    assert [sentence.partition(":")[0] for sentence in said] == [
        "transformers prefill of the behaviour",
        "transformers prefill of the reference",
    ]
    probe = Probe("kernel", "the kernels", both, conclude(both, []), "")
    places = [place_in(probe, cell) for cell in both]
    assert places == ["transformers prefill, behaviour", "transformers prefill, reference"]
    assert next(each.sentence for each in conclude(both[:1], [])).startswith("transformers prefill: ")
