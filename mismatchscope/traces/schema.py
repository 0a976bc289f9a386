"""What a trace is on disk: the manifest and the columns of its tables.

TRACE/
  manifest.json               who was measured, how, and whether the trace is complete
  sequences.parquet           one row a sequence
  tokens.parquet              one row a response token, ordered by (sequence_id, position)
  distributions.safetensors   full evidence alone: `logprobs` [R, V] float32 and `row` [R] int64
  parts/                      finished sequences of a run that still goes on; gone once they are packed
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Tag, ValidationError, model_validator

from ..credentials import masked
from ..errors import TraceError
from ..input_files import json_bytes, misfit, reason
from ..records import Evidence, Policy, Role, Sampling, Transforms

if TYPE_CHECKING:
    import pyarrow as pa

SCHEMA_VERSION: Final = 1
MANIFEST = "manifest.json"
SEQUENCES = "sequences.parquet"
TOKENS = "tokens.parquet"
DISTRIBUTIONS = "distributions.safetensors"
MASK = "mask"
"""The column of tokens.parquet that says which rows a loss counts."""
PARTS = "parts"
RESUME = "repeat the command that writes it, with --resume"


class Recorded(BaseModel):
    """What is written down of a run: texts of users, servers and environments, without the credentials in them."""

    @model_validator(mode="before")
    @classmethod
    def _without_credentials(cls, data: Any) -> Any:
        return masked(data)


class ModelFacts(Recorded):
    """The model that was run. Engines may state more than these; what is unknown is None.

    `config` and `generation_config` have every key of the files of that name, as they are on disk; {} is a file
    that does not exist. `files` maps the tokenizer's files, and the Python code
    that a model brings along, to their sha256. `chat_template_sha256` is that of the
    template's text, wherever it is kept; None is also a checkpoint without one.

    `adapter` is the PEFT adapter on top of it: {name, path, weights_sha256, config}.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str | None = None
    path: str | None = None
    architecture: str | None = None
    weights_sha256: str | None = None
    vocabulary_size: int | None = None
    dtype_stored: str | None = None
    config: dict[str, Any] | None = None
    generation_config: dict[str, Any] | None = None
    files: dict[str, str] | None = None
    chat_template_sha256: str | None = None
    adapter: dict[str, Any] | None = None


class TraceCounts(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    prompts: int = 0
    sequences: int = 0
    tokens: int = 0
    full_states: int = 0


def _known_sampling(value: Any) -> str:
    if isinstance(value, dict):
        return DRAWN if value.keys() & {"max_new_tokens", "seed"} else LOGGED
    return DRAWN if isinstance(value, Sampling) else LOGGED


DRAWN, LOGGED = "drawn", "logged"
AsSampled = Annotated[
    Annotated[Sampling, Tag(DRAWN)] | Annotated[Transforms, Tag(LOGGED)], Discriminator(_known_sampling)
]
"""How the tokens were drawn: all of it for our own engines, the transforms alone where a log says no more."""


class RunInputs(Recorded):
    """What decides the sequences of a trace and no other field of its manifest says; all None for a foreign trace.

    `version` is the engine version that was demanded, `packages` the versions that were there of this package and
    of those that the engine is made of, `model` the model as it was named, `samples` the responses a
    prompt. `needs_raw`: the raw policy had to be recorded beside the processed one. `source` names what the run was
    asked for whose tokens were scored, where both traces were made in one start of the engine, so that the source
    had no checksum yet (else `Manifest.parent` has it). `composition` is what was asked of the batches in place of
    the engine's own settings, but for the seed of their order, which `Manifest.seeds` has. `given` names the values
    of another side, and the stages of the model whose own they replaced: the policy is conditioned on them.
    `beside` names what was asked of the policy that was seen at the same time.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: str | None = None
    packages: dict[str, str] | None = None
    model: str | None = None
    samples: int | None = None
    needs_raw: bool | None = None
    source: str | None = None
    composition: dict[str, Any] | None = None
    given: dict[str, Any] | None = None
    beside: str | None = None


class Manifest(Recorded):
    """manifest.json. What an engine cannot know, or a log does not say, is None or empty, never a default.

    `settings` is what was asked of the engine, `inputs` what else the run was asked for, `effective` what the
    engine ended up doing. `temperature` is what the logits were divided by before the log-probs were taken.
    `parent` is the sha256 of the manifest of the trace whose tokens were scored, `beside` of the one that its exact
    figures are against. `prompts_sha256` names what was sampled from. `notes` are remarks for people on the run and
    its prompts, `files` maps each file of the trace to its sha256.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = SCHEMA_VERSION
    engine: str
    engine_version: str | None = None
    role: Role
    policy: Policy
    path: Literal["rollout", "decode", "prefill"]
    evidence: Evidence
    model: ModelFacts = ModelFacts()
    tokenizer_sha256: str | None = None
    eos_token_ids: list[int] | None = None
    max_length: int | None = None
    sampling: AsSampled | None = None
    temperature: float | None = None
    seeds: dict[str, int] = {}
    settings: dict[str, Any] = {}
    inputs: RunInputs = RunInputs()
    effective: dict[str, Any] = {}
    environment: dict[str, Any] = {}
    parent: str | None = None
    beside: str | None = None
    prompts_sha256: str | None = None
    notes: list[str] = []
    counts: TraceCounts = TraceCounts()
    files: dict[str, str] = {}
    created: str | None = None
    complete: bool = False

    def to_json(self) -> str:
        return self.model_dump_json(indent=1) + "\n"


def read_manifest(path: Path) -> Manifest:
    """The manifest of a trace, complete or not. Raises `TraceError` when there is none that can be read."""
    file = path / MANIFEST
    try:
        data = json_bytes(file)
    except (OSError, ValueError) as error:
        raise TraceError(
            f"{path} is no trace: {MANIFEST} cannot be read ({reason(error)}).",
            hint="mismatchscope rollout or score writes a trace; its directory is what is asked for",
        ) from None
    try:
        return Manifest.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        key, value = ".".join(str(part) for part in first["loc"] if part not in (DRAWN, LOGGED)), first["input"]
        why = f"{key}: {misfit(first)}" if key else misfit(first)
        if key == "schema_version":
            why = f"its schema version is {value!r}, this version reads {SCHEMA_VERSION}"
        raise TraceError(f"{file} cannot be used: {why}.", hint="write the trace again with this version") from None


def sequences_schema() -> pa.Schema:
    """`max_abs_logit` is the largest |logit| of the sequence, `extra` whatever else a log said of it, as JSON."""
    import pyarrow as pa

    return pa.schema(
        [
            pa.field("sequence_id", pa.int64(), nullable=False),
            pa.field("prompt_id", pa.int64(), nullable=False),
            pa.field("prompt_token_ids", pa.list_(pa.int32()), nullable=False),
            pa.field("response_token_ids", pa.list_(pa.int32()), nullable=False),
            pa.field("finish_reason", pa.string()),
            pa.field("policy_version", pa.int64()),
            pa.field("worker", pa.string()),
            pa.field("batch", pa.int64()),
            pa.field("group", pa.string()),
            pa.field("max_abs_logit", pa.float64()),
            pa.field("prompt_text", pa.string()),
            pa.field("response_pieces", pa.list_(pa.string())),
            pa.field("extra", pa.string()),
        ]
    )


def tokens_schema(*, topk: bool, tail_overlap: bool, experts: bool, mask: bool, exact: bool = False) -> pa.Schema:
    """The columns of tokens.parquet; those of top-k evidence, of routing, of a loss mask and of `exact` figures
    (`measures.full.EXACT`: of the policy that `Manifest.beside` names against this one) exist only where they were
    recorded.

    `topk_ids` are distinct, in falling order of the behaviour policy. `tail_overlap` is Σ_{a∉K} min(π_a, μ_(K)),
    which a scorer that sees its whole distribution adds. `experts` holds one list a layer.
    """
    import pyarrow as pa

    fields: list[pa.Field[Any]] = [
        pa.field("sequence_id", pa.int64(), nullable=False),
        pa.field("position", pa.int32(), nullable=False),
        pa.field("token_id", pa.int32(), nullable=False),
        pa.field("logprob", pa.float64(), nullable=False),
    ]
    if topk:
        fields += [
            pa.field("topk_ids", pa.list_(pa.int32()), nullable=False),
            pa.field("topk_logprobs", pa.list_(pa.float64()), nullable=False),
        ]
    if tail_overlap:
        fields.append(pa.field("tail_overlap", pa.float64()))
    if experts:
        fields.append(pa.field("experts", pa.list_(pa.list_(pa.int16())), nullable=False))
    if mask:
        fields.append(pa.field(MASK, pa.bool_(), nullable=False))
    if exact:
        from ..measures.full import EXACT

        fields += [pa.field(name, pa.float64(), nullable=False) for name in EXACT]
    return pa.schema(fields)
