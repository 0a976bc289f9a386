"""What is damaged, what is then run on it, and which exit codes it may end with, by kind of file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fuzz_material import BEHAVIOR, REFERENCE, TINY, audit
from mutations import BYTES, JSON, JSON_LINES, TEXT, Mutation


@dataclass(frozen=True, kw_only=True)
class Kind:
    """Copies of the files in `material`, one of which is damaged, and one of the commands is run on them.

    `report` is where a command that ends well has to leave the figures of sound material. `gated` is a damaged
    report whose gates may pass only if it still says so. `resealed`: tables whose checksums are made anew.
    """

    name: str
    material: str
    files: tuple[str, ...]
    commands: tuple[list[str], ...]
    codes: frozenset[int]
    mutations: Mapping[str, Mutation] = field(default_factory=dict)
    weight: int = 1
    workers: str | None = None
    report: str | None = None
    gated: str | None = None
    resealed: bool = False


GATES = ["--fail-on", "token.abs_logprob_diff.mean > 0.9"]
COMPARED = [
    *("compare", "material/behavior", "material/reference", "--behavior-repeat", "material/behavior-repeat"),
    *(*GATES, "-o", "out"),
]
"""The traces of a case."""
_SIDES = ["--behavior", BEHAVIOR, "--reference", REFERENCE, "--no-repeats"]
_FEW = ["--limit", "2", "--samples", "1", "--max-new-tokens", "2"]
_FORMATS = ("html", "markdown", "csv", "junit", "json")
_REPORTS = tuple(["report", "material/report.json", "-f", name] for name in _FORMATS)
_GATE = ["gate", "material/report.json", "--fail-on", "token.tv.mean > 0.5", "--fail-on", "alpha1.mean.high > 0.5"]
_RELATIVE = [
    *("gate", "material/report.json", "--baseline", "material/before/report.json"),
    *("--fail-on", "token.tv.mean > +10%", "--fail-on", "token.abs_logprob_diff.mean > +0.1"),
]
_ANY = frozenset({0, 1, 2, 3, 4})


def _prompts(file: str, mutations: Mapping[str, Mutation]) -> Kind:
    command = ["audit", "-q", *_SIDES, *_FEW, "--prompts", f"material/{file}", "-o", "out"]
    return Kind(
        name=file,
        material="inputs",
        files=(file,),
        mutations=mutations,
        commands=(command,),
        codes=frozenset({0, 2}),
        workers="synthetic",
    )


def _trace(evidence: str, file: str, mutations: Mapping[str, Mutation], weight: int = 1) -> Kind:
    return Kind(
        name=f"{evidence} {file}",
        material=evidence,
        files=tuple(f"{side}/{file}" for side in ("behavior", "reference", "behavior-repeat")),
        mutations=mutations,
        commands=(COMPARED,),
        codes=frozenset({0, 3, 4}),
        weight=weight,
        report="out/report.json",
    )


def _resealed(evidence: str, file: str) -> Kind:
    return Kind(
        name=f"{evidence} {file} resealed",
        material=evidence,
        files=tuple(f"{side}/{file}" for side in ("behavior", "reference")),
        commands=(COMPARED,),
        codes=frozenset({0, 1, 3, 4}),
        weight=2,
        resealed=True,
    )


def _report(name: str, files: tuple[str, ...], commands: tuple[list[str], ...], gated: str | None = None) -> Kind:
    return Kind(
        name=name,
        material="full",
        files=files,
        mutations=JSON,
        commands=commands,
        codes=_ANY,
        weight=2,
        gated=gated,
    )


def _unfinished(file: str, mutations: Mapping[str, Mutation]) -> Kind:
    return Kind(
        name=f"unfinished {file}",
        material="unfinished",
        files=(file,),
        mutations=mutations,
        commands=([*audit("material"), "--resume"],),
        codes=frozenset({0, 2, 3}),
        weight=2,
        workers="synthetic",
        report="material/report.json",
    )


def _model(file: str, mutations: Mapping[str, Mutation]) -> Kind:
    """Of a model on disk, which the engine transformers loads and runs."""
    command = ["rollout", "-q", "--engine", "transformers", "--model", "material/model", *_FEW, "-o", "out"]
    return Kind(
        name=f"model {file}",
        material="models",
        files=(f"model/{file}",),
        mutations=mutations,
        commands=(command,),
        codes=frozenset({0, 2, 3}),
        workers="transformers",
    )


def _adapter(file: str, mutations: Mapping[str, Mutation]) -> Kind:
    command = ["rollout", "-q", "--engine", "transformers", "--model", "material/model", *_FEW, "-o", "out"]
    return Kind(
        name=f"adapter {file}",
        material="models",
        files=(f"adapter/{file}",),
        mutations=mutations,
        commands=([*command, "--adapter", "material/adapter"],),
        codes=frozenset({0, 2, 3}),
        workers="transformers",
    )


KINDS = (
    _prompts("prompts.jsonl", JSON_LINES),
    _prompts("chats.jsonl", JSON_LINES),
    _prompts("ids.jsonl", JSON_LINES),
    _prompts("prompts.txt", TEXT),
    _prompts("prompts.parquet", BYTES),
    _prompts("chats.parquet", BYTES),
    Kind(
        name="run.toml",
        material="inputs",
        files=("run.toml",),
        mutations=TEXT,
        commands=(
            ["gate", "material/report.json", "--config", "material/run.toml"],
            ["audit", "-q", "--config", "material/run.toml", *TINY, "full", "--no-repeats", "-o", "out"],
        ),
        codes=_ANY,
        weight=2,
        workers="synthetic",
    ),
    *(_trace(evidence, "manifest.json", JSON, 2) for evidence in ("full", "topk", "sampled")),
    *(_trace(evidence, "sequences.parquet", BYTES) for evidence in ("full", "sampled")),
    *(_trace(evidence, "tokens.parquet", BYTES) for evidence in ("full", "topk")),
    _trace("full", "distributions.safetensors", BYTES),
    *(_resealed(evidence, "sequences.parquet") for evidence in ("full", "topk", "sampled")),
    *(_resealed(evidence, "tokens.parquet") for evidence in ("full", "topk", "sampled")),
    _resealed("full", "distributions.safetensors"),
    _report("report.json", ("report.json",), (*_REPORTS, ["report", "material"])),
    _report("gated report.json", ("report.json",), (_GATE,), gated="material/report.json"),
    _report("baseline report.json", ("before/report.json",), (_RELATIVE,)),
    _report("prompt sums", ("report.prompts.json", "before/report.prompts.json"), (_RELATIVE,)),
    _unfinished("run.json", JSON),
    _unfinished("*/manifest.json", JSON),
    _unfinished("*/parts/*.safetensors", BYTES),
)

MODEL_KINDS = (
    _model("config.json", JSON),
    _model("generation_config.json", JSON),
    _model("tokenizer.json", JSON),
    _model("tokenizer_config.json", JSON),
    _model("model.safetensors", BYTES),
    _adapter("adapter_config.json", JSON),
    _adapter("adapter_model.safetensors", BYTES),
)
"""Some seconds to begin with, and longer each: these engines import torch."""
