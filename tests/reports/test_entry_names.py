"""Names of the entries of a report's lists: one each, as short as may be."""

from __future__ import annotations

import pytest

from mismatchscope.errors import ConfigError
from mismatchscope.reports.entry_names import ENTRY_NAMES
from mismatchscope.reports.pair_fields import ProbeCell


def test_cells_have_the_shortest_name_that_no_other_has() -> None:
    cells = [
        ProbeCell("decode", "prefill", "vllm==0.32.0", "decode"),
        ProbeCell("decode", "trainer", "vllm==0.32.0", "decode"),
        ProbeCell("decode", "trainer", "transformers", "decode"),
        ProbeCell("prefill", "trainer", "transformers", "prefill"),
    ]
    names = ENTRY_NAMES["cells"]
    sides = [
        ProbeCell("fp8", "as given", "vllm", "prefill", side="behavior"),
        ProbeCell("fp8", "as given", "vllm", "prefill", side="reference"),
    ]
    assert names.names(sides) == [
        "fp8_vllm_prefill_against_as_given_behavior",
        "fp8_vllm_prefill_against_as_given_reference",
    ]
    assert names.names(cells) == [
        "decode_vllm_0_32_0_decode_against_prefill",
        "decode_vllm_0_32_0_decode_against_trainer",
        "decode_transformers_decode",
        "prefill",
    ]
    assert [names.find(cells, name) for name in names.names(cells)] == cells
    assert names.find(cells, "prefill_transformers_prefill") == cells[3]
    for name in ("decode", "decode_vllm_0_32_0_decode"):
        with pytest.raises(ConfigError, match="ambiguous"):
            names.find(cells, name)
