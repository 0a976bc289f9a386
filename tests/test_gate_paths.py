"""Every path of five example reports, tried as a gate: decided by the number there, or refused with a hint."""

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

EXAMPLES = {name: getattr(example_reports, name)() for name in ("full", "topk", "sampled", "versions", "log")}
FOLLOWS = ("rounding_floor", "unseen_share", "pareto_k_limit")  # from settings and counts
NOT_FIGURES = re.compile(
    r"schema_version|(log|sequences|correction_sweeps|correction_series|figures|reading|evidence_choice|worst|provenance|gates|alarms|baseline\.(provenance|difference))\b.*"
    r"|(trend|native_metrics)\..*\.(steps|values|low|high|first_steps|last_steps|change_points|logged)\..*"
    r"|(trend\..*|staleness)\.tolerance|distribution\..*\.evidence\..*"
    r"|.*\b(confidence|quantile|tau|threshold|n_needed|step_offset|passed_at|at_responses|parameters(\..*)?)|sequence\.by_length\.\w+\.(low|high)"
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


def safe(label: str) -> str:
    return re.sub("[^A-Za-z0-9_-]+", "_", label)


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
            case "groups":
                keys[at] = node["by"]
            case "rows":
                keys[at] = safe(node["label"])
            case "distribution":
                keys[at] = node["code"]
            case "correction_audit":
                keys[at] = safe(node["column"]) + "_" + safe(node["code"])
            case "native_metrics":
                keys[at] = safe(node["trainer"]) + "_" + safe(node["name"])
    return ".".join(keys)


def expected_ends(path: str, node: Any, document: dict) -> tuple[Any, Any]:
    """Between which numbers a figure lies, read from JSON; None: nothing is known on that side."""
    parent: Any = document
    *above, last = path.split(".")
    for key in above:
        parent = parent[int(key) if isinstance(parent, list) else key]
    if isinstance(node, dict):
        above, last = [*above, last], next((name for name in ("mean", "value") if name in node), "")
        parent, node = node, node.get(last)
    if "trainer" in parent:
        return (None, None) if node is None else (node, node)
    if last == "differs":
        return node, node or None  # not shown to differ is not shown to be alike
    if last in ("mean", "value") and "low" in parent:
        low, high = parent["low"], parent["high"]
    elif node is None:
        return None, None
    elif isinstance(node, int) or last in FOLLOWS or re.search(r"(^|_)(low|high)$", last):
        low = high = node
    elif last == "observed_upper":
        low, high = parent["observed_max"], node
    elif last in ("max", "observed_max"):
        low, high = node, None
    elif last.endswith("_upper") or last == "value":
        low, high = None, node
    elif f"{last}_upper" in parent:
        low, high = None, parent[f"{last}_upper"]
    elif last in parent.get("quantile_limits", {}):
        low, high = parent["quantile_limits"][last]
    else:
        low, high = parent.get(f"{last}_low"), parent.get(f"{last}_high")
    if isinstance(node, int):
        return low, high
    if any(key.endswith("_lower") for key in above):
        return None if last == "high" else low, None
    if any(key.endswith("_upper") for key in above):
        return None, None if last == "low" else high
    return low, high


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == "topk" else pytest.mark.slow) for name in EXAMPLES]
)
def test_every_path_of_a_report_is_decided_by_the_ends_there_or_refused(name: str) -> None:
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
        low, high = (math.inf if end == "Infinity" else end for end in expected_ends(by_index, node, document))
        decided += (low, high) != (None, None)
        known = [end for end in (low, high) if end is not None]
        thresholds = {0.0, *(end + step for end in known for step in (-1.0, 0.0, 1.0)), sum(known) / 2}
        for threshold in thresholds:
            if not math.isfinite(threshold):
                continue
            over = (
                "fail"
                if low is not None and low > threshold
                else "pass"
                if high is not None and high <= threshold
                else "inconclusive"
            )
            opposite = {"fail": "pass", "pass": "fail", "inconclusive": "inconclusive"}[over]
            assert verdict(f"{path} > ({threshold:.17g})", report) == over, (path, low, threshold, high)
            assert verdict(f"{path} <= ({threshold:.17g})", report) == opposite, (path, low, threshold, high)
    assert decided > 20 and refused > 30


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
