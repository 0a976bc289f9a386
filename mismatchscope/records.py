"""What an engine is asked for and what it gives back, in the form that both sides of the process border speak.

A worker runs in the interpreter of its engine, so this module needs the standard library, numpy and safetensors
alone. Requests travel to the worker in one file; every finished sequence comes back as one *part*: a safetensors
file with a checksum, renamed into place when it is whole. A part that is not what was written is as good as none.

Shapes: T response tokens, K observed ids a token, V vocabulary, R states with a full distribution, S sequences.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np

from .composition import BatchComposition
from .durable import write_atomic
from .errors import TraceError
from .transforms import Sampling as Sampling
from .transforms import Transforms as Transforms

Policy = Literal["raw", "processed", "support"]
Role = Literal["behavior", "reference", "target"]
EvidenceLevel = Literal["sampled", "topk", "full"]


@dataclass(frozen=True)
class Evidence:
    """What is recorded of each state's distribution.

    `k` belongs to top-k alone. `fraction` < 1 keeps full distributions of a random subset of states, chosen by
    `keeps_full` from (seed, sequence, position), so that both sides choose the same ones.
    """

    level: EvidenceLevel = "full"
    k: int = 0
    fraction: float = 1.0
    seed: int = 0

    def keeps_full(self, sequence_id: int, length: int) -> np.ndarray:
        """Boolean [length]: which states of this sequence keep their full distribution."""
        import numpy as np

        if self.level != "full" or self.fraction >= 1.0:
            return np.full(length, self.level == "full")
        return np.random.default_rng([self.seed, sequence_id]).random(length) < self.fraction


@dataclass(frozen=True)
class Request:
    """One sequence to sample (no response yet) or to score (its response given).

    A prompt that still has to be tokenised carries `prompt` instead of its token ids: text, or chat messages, and
    with them in `template_arguments` what else the chat template is given.
    `observed_ids_TK` are the ids at which a scorer must report log-probs (μ's top-k), padded with -1;
    `kth_logprob_T` is log μ of the k-th of them, from which a scorer that sees its whole distribution computes
    the tail overlap of the certified top-k interval.
    """

    sequence_id: int
    prompt_id: int
    prompt_token_ids: np.ndarray | None = None  # int32
    prompt: str | list[dict[str, Any]] | None = None
    response_token_ids: np.ndarray | None = None  # int32 [T]
    finish_reason: str | None = None
    observed_ids_TK: np.ndarray | None = None  # int32
    kth_logprob_T: np.ndarray | None = None  # float64
    template_arguments: dict[str, Any] = field(default_factory=dict)


@dataclass
class Observed:
    """What was seen of one policy along one sequence. Log-probs are natural and normalised; -inf is "excluded".

    `topk_ids_TK` holds distinct ids in falling order of the *behaviour* policy, padded with -1 (log-prob NaN).
    `full_row_R` names the positions whose whole distribution is in `full_logprobs_RV`. `exact_TF` has the figures
    `measures.full.EXACT` of another policy, seen beside this one, against this one.
    """

    logprob_T: np.ndarray  # float64, of the sampled token
    topk_ids_TK: np.ndarray | None = None  # int32
    topk_logprobs_TK: np.ndarray | None = None  # float64
    tail_overlap_T: np.ndarray | None = None  # float64, Σ_{a∉K} min(π_a, μ_(K))
    full_row_R: np.ndarray | None = None  # int64
    full_logprobs_RV: np.ndarray | None = None  # float32
    exact_TF: np.ndarray | None = None  # float64


@dataclass
class SequenceRecord:
    """One finished sequence. `raw` is present only where the sampled policy is not the raw one, `beside` where
    another policy was seen at the same time. `group` is what a trainer calls those that share an advantage,
    `max_abs_logit` the largest |logit| of them all. `mask_T` is true at the tokens that a loss counts; None where
    nobody said.
    """

    sequence_id: int
    prompt_id: int
    prompt_token_ids: np.ndarray  # int32
    response_token_ids: np.ndarray  # int32 [T]
    finish_reason: str  # "stop" (end-of-sequence token, included in the response) or "length"
    observed: Observed
    raw: Observed | None = None
    beside: Observed | None = None
    batch: int | None = None
    policy_version: int | None = None
    worker: str | None = None
    group: str | None = None
    max_abs_logit: float | None = None
    max_abs_logit_beside: float | None = None
    prompt_text: str | None = None
    prompt_remarks: list[str] = field(default_factory=list)  # what is odd about its tokens, a sentence each
    response_pieces: list[str] | None = None  # decoded one token at a time, for people to read
    experts: np.ndarray | None = None  # int16 [T, layers, top_k]
    mask_T: np.ndarray | None = None  # bool
    extra: dict[str, Any] = field(default_factory=dict)


_RECORD_ARRAYS = ("prompt_token_ids", "response_token_ids", "experts", "mask_T")
_RECORD_VIEWS = ("observed", "raw", "beside")
_REQUEST_ARRAYS = ("prompt_token_ids", "response_token_ids", "observed_ids_TK", "kth_logprob_T")


def write_part(directory: Path, record: SequenceRecord, *, run: str = "") -> Path:
    """Write one sequence as `<sequence_id>.safetensors`, whole or not at all; `OSError` when the disk is full.

    `run` names what it was made for (`traces.identity.request_sha256`). It is not synced: parts are many.
    """
    import numpy as np
    from safetensors.numpy import save

    values = dict(vars(record))
    arrays = {name: values.pop(name) for name in _RECORD_ARRAYS}
    for view in _RECORD_VIEWS:
        observed = values.pop(view)
        arrays |= {} if observed is None else {f"{view}.{name}": array for name, array in vars(observed).items()}
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items() if array is not None}
    scalars = {"record": json.dumps(values), "run": run}
    # One key, because safetensors writes several in an order that differs from one time to the next.
    metadata = {"part": json.dumps(scalars | {"sha256": _content_sha256(scalars, arrays)})}
    write_atomic(path := directory / f"{record.sequence_id:09d}.safetensors", save(arrays, metadata), durable=False)
    return path


def read_part(path: Path, *, run: str | None = None) -> SequenceRecord:
    """Read what `write_part` wrote, for this `run` where one is given.

    Raises `TraceError` for what is no part, truncated, altered, of another sequence than its name says, or of
    another run.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise TraceError(f"{path} is no file.")
    try:
        with safe_open(path, framework="numpy") as part:
            scalars = json.loads((part.metadata() or {})["part"])
            arrays = {name: part.get_tensor(name) for name in part.keys()}  # noqa: SIM118 - not a mapping
        if scalars.pop("sha256", None) != _content_sha256(scalars, arrays):
            raise ValueError("its checksum is not that of its content")
        if run not in (None, scalars["run"]):
            raise ValueError("another run wrote it")
        record = _record_of(json.loads(scalars["record"]), arrays)
        if record.sequence_id != int(path.stem):
            raise ValueError(f"it holds sequence {record.sequence_id}")
    except (SafetensorError, KeyError, ValueError, TypeError, RecursionError) as error:
        raise TraceError(f"{path} cannot be read: {error}.") from error
    return record


def _record_of(values: dict[str, Any], arrays: dict[str, np.ndarray]) -> SequenceRecord:
    views: dict[str, dict[str, np.ndarray]] = {view: {} for view in _RECORD_VIEWS}
    for key in [key for key in arrays if key not in _RECORD_ARRAYS]:
        view, _, name = key.partition(".")
        views[view][name] = arrays[key]
    given: dict[str, Any] = {view: Observed(**found) for view, found in views.items() if found}
    return SequenceRecord(**values | {name: arrays.get(name) for name in _RECORD_ARRAYS} | given)


def _content_sha256(scalars: Mapping[str, str], arrays: Mapping[str, np.ndarray]) -> str:
    """Of all that a part says; safetensors checks no more of its tensors than how many bytes there are."""
    described = {name: [str(array.dtype), array.shape] for name, array in sorted(arrays.items())}
    digest = hashlib.sha256(json.dumps([scalars, described], sort_keys=True).encode())
    for name in described:
        digest.update(arrays[name].data)
    return digest.hexdigest()


def finished_parts(directory: Path) -> dict[int, Path]:
    """The parts on disk by sequence id; files of other names, still being written (`.tmp`) say, do not count."""
    found = sorted(directory.glob("*.safetensors"))
    return {int(path.stem): path for path in found if re.fullmatch("[0-9]{9,18}", path.stem)}


def write_requests(path: Path, requests: Iterable[Request]) -> None:
    """Store requests in one safetensors file: ragged arrays end to end, with their lengths."""
    import numpy as np
    from safetensors.numpy import save

    requests, arrays = list(requests), {}
    for name in _REQUEST_ARRAYS:
        values = [getattr(request, name) for request in requests]
        if present := [value for value in values if value is not None]:
            arrays[name] = np.concatenate(present)
            arrays[f"{name}.length"] = np.array([-1 if v is None else len(v) for v in values], dtype=np.int64)
    scalars = [{k: v for k, v in vars(r).items() if k not in _REQUEST_ARRAYS and v is not None} for r in requests]
    arrays["count"] = np.array([len(requests)], dtype=np.int64)  # an empty file has nothing to hang metadata on
    write_atomic(path, save(arrays, metadata={"requests": json.dumps(scalars)}), durable=False)


def read_requests(path: Path) -> list[Request]:
    """Read what `write_requests` wrote."""
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        scalars = json.loads(file.metadata()["requests"])
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    for name in (name for name in _REQUEST_ARRAYS if name in arrays):
        start = 0
        for entry, length in zip(scalars, arrays[f"{name}.length"].tolist(), strict=True):
            if length >= 0:
                entry[name] = arrays[name][start : start + length]
                start += length
    return [Request(**entry) for entry in scalars]


def request_to_score(record: SequenceRecord, evidence: Evidence, policy: Policy = "processed") -> Request:
    """Ask for the log-probs of a finished sequence; the one rule, for sequences from parts and from traces alike.

    With top-k evidence they are asked for at the ids that were observed, [T, K] with K = `evidence.k` at least.
    `kth_logprob_T` is log μ_(k), the bound on every id that was not observed: the k-th listed log-prob. A state
    that lists fewer than k ids shows all that its policy can sample, so the rest has no mass: -inf.
    Of a record that has both views, the one of `policy` is taken.
    """
    import numpy as np

    observed = record.raw if policy == "raw" and record.raw is not None else record.observed
    ids_TK, kth_logprob_T = None, None
    if evidence.level == "topk" and observed.topk_ids_TK is not None and observed.topk_logprobs_TK is not None:
        k = max(1, evidence.k)
        missing = ((0, 0), (0, max(0, k - observed.topk_ids_TK.shape[1])))
        ids_TK = np.pad(observed.topk_ids_TK, missing, constant_values=-1)
        logprobs_TK = np.pad(observed.topk_logprobs_TK, missing, constant_values=np.nan)
        # Ids are in falling order. Beyond the k-th a list may hold the sampled token, which bounds nothing.
        kth_logprob_T = np.where(ids_TK[:, k - 1] >= 0, logprobs_TK[:, k - 1], -np.inf)
    return Request(
        sequence_id=record.sequence_id,
        prompt_id=record.prompt_id,
        prompt_token_ids=record.prompt_token_ids,
        response_token_ids=record.response_token_ids,
        finish_reason=record.finish_reason,
        observed_ids_TK=ids_TK,
        kth_logprob_T=kth_logprob_T,
    )


@dataclass(frozen=True)
class Task:
    """One pass of an engine over its requests, in a worker.

    `kind` "rollout" samples; "score" forces the given responses through `path`: "decode" (one token at a time
    through the cache, as sampling does) or "prefill" (one forward over the whole sequence, as training does);
    "weights" runs nothing: it holds what was loaded against the checkpoint, `parts` gets one file (`job.WEIGHTS`);
    "internals" prefills and shows what is inside: `stages`, named as in `engines.common.stages` (none: all), of
    `extent` sequences and tokens of each (0: all); with `inputs`, on the values that another side has shown.
    `requests` is a file of `write_requests`, or for "weights" a checkpoint to take first; `parts` the directory
    that receives the finished sequences, each with the name of the `run` that it was made for.
    `policy` says which distribution `Observed` describes: "raw" the softmax of the logits, "processed" what is left
    after the temperature, top-k and top-p of `sampling`, when sampling and when scoring alike.
    """

    name: str
    kind: Literal["rollout", "score", "weights", "internals"]
    requests: str
    parts: str
    evidence: Evidence = Evidence()
    policy: Policy = "processed"
    sampling: Sampling = field(default_factory=Sampling)
    path: Literal["decode", "prefill"] = "prefill"
    composition: BatchComposition = field(default_factory=BatchComposition)
    run: str = ""
    stages: tuple[str, ...] = ()
    inputs: str = ""
    extent: tuple[int, int] = (0, 0)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Task:
        parts = {"evidence": Evidence, "sampling": Sampling, "composition": BatchComposition}
        made = {key: kind(**data[key]) for key, kind in parts.items()}
        return cls(**data | made | {key: tuple(data[key]) for key in ("stages", "extent")})
