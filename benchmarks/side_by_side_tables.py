"""What the benchmark of scoring side by side measures, and its tables."""

from __future__ import annotations

from statistics import median
from typing import Any

WORDS = 151_936
SHAPES: dict[str, dict[str, int | float]] = {
    "the shape of Qwen3-0.6B": {
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "initializer_range": 0.03,
    },
    "little but a head": {
        "hidden_size": 512,
        "intermediate_size": 1536,
        "num_hidden_layers": 4,
        "num_attention_heads": 8,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "initializer_range": 0.05,
    },
}
"""The smallest model that is used with such a vocabulary, and the worst case."""
PROMPT = 32
SIDES = ("float32", "bfloat16")
MOST_OF_FORWARDS, LEAST_OF_STORING = 1.15, 5.0


def to_markdown(results: dict[str, Any]) -> str:
    about = results["about"]
    lines = [
        "# Two settings side by side",
        "",
        f"{about['date']} · {about['processor']}, {about['cores']} cores · Python {about['python']}, torch "
        f"{about['torch']} · load average {about['load_before']:.1f} before, {about['load_after']:.1f} after",
        "",
        f"Made by `python benchmarks/side_by_side.py`: random Qwen3 models of {WORDS:,} words, "
        f"{' against '.join(SIDES)}, prefill after prompts of {PROMPT} tokens; {about['repeats']} calls each, in "
        "turn, and ratios of the fastest. The forwards are the same in all four rows of a model: on a CPU they "
        "bound what storing can be slower by in all.",
    ]
    for name, measured in results["models"].items():
        lines += ["", *_model_lines(name, measured)]
    return "\n".join(lines) + "\n"


def _model_lines(name: str, measured: dict[str, Any]) -> list[str]:
    states = measured["states"]
    shape = ", ".join(f"{key} {value:,}" for key, value in SHAPES[name].items() if isinstance(value, int))
    lines = [
        f"## {name[0].upper()}{name[1:]}",
        "",
        f"{shape}; {states} response tokens.",
        "",
        "| | s, median (fastest) | ms a token | processor s |",
        "| --- | --- | --- | --- |",
    ]
    for contender, each in measured["times"].items():
        wall, spent = median(each["wall"]), median(each["processor"])
        lines.append(
            f"| {contender} | {wall:.2f} ({min(each['wall']):.2f}) | {1e3 * wall / states:.1f} | {spent:.2f} |"
        )
    lines += ["", "| | on the clock | of processor time | asked |", "| --- | --- | --- | --- |"]
    claims = (f"≤ {MOST_OF_FORWARDS}", f"≥ {LEAST_OF_STORING:g}", "", "")
    wall, spent = measured["ratios"]["wall"], measured["ratios"]["processor"]
    for figure, claim in zip(wall, claims, strict=True):
        lines.append(f"| {figure} | {wall[figure]:.2f} | {spent[figure]:.2f} | {claim} |")
    return [
        *lines,
        "",
        f"On disk: {measured['stored_bytes'] / 2**20:,.1f} MiB stored whole (twice that while they are packed), "
        f"{measured['side_by_side_bytes'] / 2**10:,.1f} KiB side by side. All figures of the two pairs are the "
        f"same: {'yes' if measured['same_figures'] else 'NO'}.",
    ]
