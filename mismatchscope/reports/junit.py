"""The gates as JUnit XML, so that a CI system shows them beside the tests.

One test case a gate. A failed gate is a `failure`. An inconclusive gate is an `error`: nothing was shown to be
wrong, but the question was not answered either, and a `skipped` case would turn the build green. Without gates
there is one `skipped` case that states the finding: nothing was asked for, so nothing has passed. What a version
audit says of its baseline is a property of the suite: it passes or fails by the gates that are set on it.

XML 1.0 cannot carry most control characters and no surrogates, not even escaped: they are spelled out.
"""

from __future__ import annotations

from xml.etree import ElementTree

from ..foreign_text import printable, printable_lines
from .document import GateResult, Report
from .summary import gate_value, headline, not_compared

_ELEMENT = {"fail": "failure", "inconclusive": "error"}


def render(report: Report) -> str:
    """The report as one JUnit test suite named `mismatchscope`."""
    verdicts = [gate.verdict for gate in report.gates]
    suite = ElementTree.Element("testsuite", name="mismatchscope", tests=str(len(verdicts) or 1))
    suite.set("failures", str(verdicts.count("fail")))
    suite.set("errors", str(verdicts.count("inconclusive")))
    suite.set("skipped", "0" if verdicts else "1")
    suite.set("time", f"{report.provenance.duration_s or 0:.3f}")
    if report.provenance.created:
        suite.set("timestamp", printable(report.provenance.created))
    if report.baseline:
        properties = ElementTree.SubElement(suite, "properties")
        ElementTree.SubElement(properties, "property", name="baseline", value=report.baseline.verdict)
    for gate in report.gates:
        suite.append(_gate_case(gate))
    if not report.gates:
        case = ElementTree.SubElement(suite, "testcase", classname="mismatchscope", name="finding", time="0")
        ElementTree.SubElement(case, "skipped", message=printable(f"no gate was set; {report.finding.sentence}"))
    ElementTree.SubElement(suite, "system-out").text = _summary(report)
    suites = ElementTree.Element("testsuites")
    suites.append(suite)
    ElementTree.indent(suites)
    document = ElementTree.tostring(suites, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{printable_lines(document)}\n'


def _gate_case(gate: GateResult) -> ElementTree.Element:
    name = printable(gate.expression)
    case = ElementTree.Element("testcase", classname="mismatchscope.gate", name=name, time="0")
    if gate.verdict in _ELEMENT:
        message = "; ".join(filter(None, [f"is {gate_value(gate)}", gate.reason]))
        ElementTree.SubElement(case, _ELEMENT[gate.verdict], type=gate.verdict, message=printable(message))
    return case


def _summary(report: Report) -> str:
    head = headline(report)
    lines = [f"{head.badge}: {head.sentence}", head.scope, not_compared(report)]
    if baseline := report.baseline:
        lines.insert(1, f"{baseline.verdict.upper()}: {baseline.sentence}")
    for alarm in report.alarms:
        lines.append(f"{alarm.severity}: {alarm.message}" + (f" -> {alarm.remedy}" if alarm.remedy else ""))
    return "\n".join(printable(line) for line in [*lines, report.provenance.command] if line)
