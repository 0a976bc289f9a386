"""The tables of the benchmark, as markdown, with Wilson intervals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

from levels import EXPERIMENTS, LEVELS, TITLES
from scipy.stats import binomtest
from scoring import OUTCOMES, Scored, answer_label, label, points, severity_band

BANDS = ("hidden, < 1.25", "faint, 1.5 – 3", "clear, 3 – 30", "gross, > 30")
ALONE: dict[str, float] = {"sampled": 0.5, "metadata": 0.65, "full": 0.75, EXPERIMENTS: 0.85}
WRONG, FALSE_ALARMS, CONFIDENCE = 0.05, 0.02, 0.05
"""What the diagnosis is to reach: named alone and right at the least, wrong, and controls called a fault, at the
most, and how far a stated confidence may be from what happens."""
CONFIDENCE_EDGES = (0.0, 0.7, 0.8, 0.85, 0.9, 0.95, 1.01)


def share(count: int, total: int, digits: int = 0) -> str:
    """A percentage with its Wilson interval at 95 %."""
    if not total:
        return "–"
    interval = binomtest(count, total).proportion_ci(0.95, method="wilson")
    return f"{count / total:.{digits}%} ({interval.low:.0%} – {interval.high:.0%})".replace("%", " %")


def outcomes(groups: Iterable[tuple[str, Sequence[Scored]]], heading: str) -> str:
    """A row of outcomes for each group."""
    lines = [
        f"| {heading} | cases | {' | '.join(OUTCOMES)} | points |",
        "|" + " --- |" * (len(OUTCOMES) + 3),
    ]
    for name, scored in groups:
        if scored:
            counts = Counter(each.outcome for each in scored)
            cells = [share(counts[outcome], len(scored)) for outcome in OUTCOMES]
            lines.append(f"| {name} | {len(scored)} | {' | '.join(cells)} | {points(scored):.2f} |")
    return "\n".join(lines)


def by(scored: Sequence[Scored], key: Callable[[Scored], str], order: Sequence[str] | None = None):
    """Groups of cases by a name, in an order or sorted."""
    names = sorted({key(each) for each in scored}) if order is None else order
    return [(name, [each for each in scored if key(each) == name]) for name in names]


def by_level(scored: Sequence[Scored]) -> str:
    """Cases that have a fault which shows."""
    faults = [each for each in scored if not each.truth.hidden]
    levels = (*LEVELS, EXPERIMENTS)
    return outcomes(
        [(TITLES[level], [each for each in faults if each.level == level]) for level in levels], "evidence"
    )


def against_bars(scored: Sequence[Scored]) -> str:
    """What is to be reached, what was, and whether it is: missed ones are told like the others."""
    lines = ["| what | to reach | reached | |", "| --- | --- | --- | --- |"]

    def row(what: str, bar: str, count: int, total: int, kept: bool) -> None:
        if total:
            lines.append(f"| {what} | {bar} | {share(count, total, 1)} | {'kept' if kept else '**missed**'} |")

    for level in (*LEVELS, EXPERIMENTS):
        faults = [each for each in scored if each.level == level and not each.truth.hidden]
        alone = sum(each.outcome == "right alone" for each in faults)
        wrong = sum(each.outcome == "wrong" for each in faults)
        if level in ALONE:
            bar = ALONE[level]
            row(
                f"right alone, {TITLES[level]}",
                f"≥ {100 * bar:.0f} %",
                alone,
                len(faults),
                alone >= bar * len(faults),
            )
        row(f"wrong, {TITLES[level]}", f"≤ {100 * WRONG:.0f} %", wrong, len(faults), wrong <= WRONG * len(faults))
    for level in (*LEVELS, EXPERIMENTS):
        sound = [each for each in scored if each.level == level and not each.truth.causes]
        called = sum(each.outcome == "called a fault" for each in sound)
        kept = called <= FALSE_ALARMS * len(sound)
        row(f"controls called a fault, {TITLES[level]}", f"≤ {100 * FALSE_ALARMS:.0f} %", called, len(sound), kept)
    for level in LEVELS:
        stated = [each for each in scored if each.level == level and each.said.confidence is not None]
        stated = [each for each in stated if each.said.causes]
        right = sum(each.outcome in ("right alone", "right set") for each in stated)
        mean = sum(each.said.confidence or 0 for each in stated) / max(1, len(stated))
        kept = abs(mean - right / max(1, len(stated))) <= CONFIDENCE
        row(
            f"right where {100 * mean:.1f} % is stated on average, {TITLES[level]}",
            "± 5 %",
            right,
            len(stated),
            kept,
        )
    return "\n".join(lines)


def controls(scored: Sequence[Scored]) -> str:
    """Cases without a fault, by level, and those whose kernel development has not seen."""
    sound = [each for each in scored if not each.truth.causes]
    groups = [(TITLES[level], [each for each in sound if each.level == level]) for level in LEVELS]
    most = [each for each in sound if each.level == LEVELS[-1]]
    groups += [(f"kernel: {name}", group) for name, group in by(most, lambda each: each.truth.detail["kernel"])]
    return outcomes(groups, "controls")


def confusions(scored: Sequence[Scored], level: str) -> str:
    """What was said of each cause, the commonest first."""
    lines = ["| planted | cases | said |", "| --- | --- | --- |"]
    for name, group in by([each for each in scored if each.level == level], lambda each: label(each.truth)):
        said = Counter(answer_label(each.said) for each in group).most_common()
        lines.append(f"| {name} | {len(group)} | {' · '.join(f'{answer} {count}' for answer, count in said[:8])} |")
    return "\n".join(lines)


def by_plant(scored: Sequence[Scored], level: str) -> str:
    chosen = [each for each in scored if each.level == level and not each.truth.hidden]
    return outcomes(by(chosen, lambda each: each.key.plant), "planted")


def by_severity(scored: Sequence[Scored], level: str) -> str:
    chosen = [each for each in scored if each.level == level]
    return outcomes(by(chosen, lambda each: severity_band(each.truth), BANDS), "severity, in floors")


def by_stack(scored: Sequence[Scored], level: str) -> str:
    chosen = [each for each in scored if each.level == level and not each.truth.hidden]
    groups = by(chosen, lambda each: f"stack: {each.key.stack}") + by(
        chosen, lambda each: f"model: {each.key.model}"
    )
    return outcomes(groups, "stack, model")


def reliability(scored: Sequence[Scored]) -> str:
    """How often answers that state a confidence were right, by what they state."""
    stated = [each for each in scored if each.said.confidence is not None and each.said.causes]
    lines = ["| stated | answers | mean stated | right |", "| --- | --- | --- | --- |"]
    for low, high in pairwise(CONFIDENCE_EDGES):
        group = [each for each in stated if low <= (each.said.confidence or 0) < high]
        if group:
            mean = sum(each.said.confidence or 0 for each in group) / len(group)
            right = sum(each.outcome in ("right alone", "right set") for each in group)
            lines.append(
                f"| {low:.2f} – {min(high, 1):.2f} | {len(group)} | {mean:.2f} | {share(right, len(group))} |"
            )
    return "\n".join(lines)


def detectors(scored: Sequence[Scored], level: str) -> str:
    """How often each detector named, and was right."""
    named: Counter[str] = Counter()
    right: Counter[str] = Counter()
    for each in scored:
        if each.level == level and each.said.causes:
            for detector in each.said.detectors:
                named[detector] += 1
                right[detector] += each.outcome in ("right alone", "right set")
    lines = ["| detector | named | right |", "| --- | --- | --- |"]
    lines += [f"| {name} | {count} | {share(right[name], count)} |" for name, count in named.most_common()]
    return "\n".join(lines)
