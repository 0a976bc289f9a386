"""Every path of four example reports, tried as a gate: decided by the number there, or refused with a hint."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any

import example_reports
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mismatchscope import gate
from mismatchscope.errors import ConfigError
from mismatchscope.reports.document import Report

EXAMPLES = {name: getattr(example_reports, name)() for name in ("full", "topk", "sampled", "versions")}
NOT_FIGURES = re.compile(
    r"schema_version|(figures|reading|evidence_choice|worst|provenance|gates|alarms|baseline\.(provenance|difference))\b.*"
    r"|.*\b(confidence|quantile|tau|threshold|n_needed|parameters(\..*)?)|sequence\.by_length\.\w+\.(low|high)"
)


def verdict(expression: str, report: Report) -> str:
    return gate.apply(report, [expression]).verdict


def places(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every place in the JSON of a report, groups and entries of lists too, lists by index."""
    if path:
        yield path, node
    if isinstance(node, list) and not isinstance(next(iter(node), None), dict):
        node = node[:2]  # the points of a chart are all alike
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, child in children:
        yield from places(child, f"{path}.{key}" if path else str(key))


def named(path: str, document: dict) -> str:
    """The path with the names of entries in the place of indices, as docs/gates.md spells them."""
    keys = path.split(".")
    node: Any = document
    for at, key in enumerate(keys):
        node = node[int(key) if isinstance(node, list) else key]
        match keys[at - 1]:
            case _ if not key.isdigit():
                continue
            case "tolerance":
                keys[at] = {0.9: "p90", 0.95: "p95", 0.99: "p99", 0.999: "p999"}[node["quantile"]]
            case "exceedance":
                tau = f"{node['tau']:.4f}".rstrip("0") if node["tau"] >= 1e-4 else f"{node['tau']:.0e}"
                keys[at] = "tau_" + tau.replace(".", "_").replace("e-0", "e-")
            case "by_length":
                keys[at] = f"tokens_{node['low']}_to_{node['high']}"
            case "corrections":
                keys[at] = node["name"].replace(" ", "_").lower()
    return ".".join(keys)


def expected_interval(path: str, node: Any, document: dict) -> tuple[Any, Any] | None:
    """The least and the largest number that a figure may be, read from JSON; None: not a figure of its own."""
    parent: Any = document
    for key in path.split(".")[:-1]:
        parent = parent[int(key) if isinstance(parent, list) else key]
    last = path.rpartition(".")[2]
    if isinstance(node, dict):
        center = next((name for name in ("mean", "value") if {name, "low", "high"} <= node.keys()), None)
        if center is None:
            return None
        parent, last, node = node, center, node[center]
    if last in ("mean", "value") and parent.get("low") is not None:
        return parent["low"], parent["high"]
    if last in ("ess_fraction", "chi2") and parent.get(f"{last}_low") is not None:
        return parent[f"{last}_low"], parent[f"{last}_high"]
    if last == "observed_max" and parent["observed_upper" if "observed_upper" in parent else last] is not None:
        return node, parent.get("observed_upper", node)
    return node, node


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_path_of_a_report_is_decided_by_the_number_there_or_refused(name: str) -> None:
    report = EXAMPLES[name]
    document = json.loads(report.to_json())
    decided, refused = 0, 0
    for by_index, node in places(document):
        path = named(by_index, document)
        try:
            gate.parse(f"{path} > 0")
        except ConfigError as error:
            assert error.hint, path
            number = isinstance(node, int | float) and not NOT_FIGURES.fullmatch(path)
            assert not number, f"{path} is a figure and was refused"
            refused += 1
            continue
        assert not NOT_FIGURES.fullmatch(path), f"{path} is no figure and was accepted"
        ends = expected_interval(by_index, node, document)
        if None in (ends or (None,)):
            assert verdict(f"{path} > 0", report) == verdict(f"{path} <= 0", report) == "inconclusive", path
            continue
        low, high = (math.inf if end == "Infinity" else float(end) for end in ends)
        decided += 1
        for threshold in (low - 1.0, low, (low + high) / 2, high, high + 1.0):
            if not math.isfinite(threshold):
                threshold = 0.0
            signed = f"{threshold:.17g}"
            if signed.startswith("-"):
                continue  # a sign is relative to a baseline
            over = "fail" if low > threshold else "pass" if high <= threshold else "inconclusive"
            opposite = {"fail": "pass", "pass": "fail", "inconclusive": "inconclusive"}[over]
            assert verdict(f"{path} > {signed}", report) == over, (path, low, threshold, high)
            assert verdict(f"{path} <= {signed}", report) == opposite, (path, low, threshold, high)
    assert decided > 30 and refused > 30


SEGMENTS = sorted(
    {
        key
        for report in EXAMPLES.values()
        for path, _ in places(json.loads(report.to_json()))
        for key in path.split(".")
        if len(key) < 30
    }
)


@given(
    keys=st.lists(
        st.sampled_from(SEGMENTS) | st.text("abkptv_019-", min_size=1, max_size=8), min_size=1, max_size=6
    ),
    report=st.sampled_from(list(EXAMPLES.values())),
)
def test_no_path_raises_anything_but_a_configuration_error(keys: list[str], report: Report) -> None:
    path = ".".join(keys)
    try:
        found = verdict(f"{path} > 0.5", report)
    except ConfigError as error:
        if "no figure" in error.message:
            for suggested in re.findall(r"[a-z]\w*(?:\.[\w-]+)+", error.hint):
                gate.parse(f"{suggested} > 0.5")
    else:
        assert found in ("pass", "fail", "inconclusive")
