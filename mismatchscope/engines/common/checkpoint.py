"""What is on disk of a model: what it is, the hashes that identify it, and its tokenizer.

Every engine reads the same files, so all of them describe and tokenise through this module.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import EngineError, ModelError, PromptsError
from ...input_files import open_regular, read_bytes
from ...records import Observed, Request, SequenceRecord
from .chat_template import chat_token_ids
from .identity import TEXT_BYTES, identity, read_json
from .prompt_remarks import PromptMarkers

_TOKENIZER_FILES = ("tokenizer.model", "vocab.json", "merges.txt", "vocab.txt", "added_tokens.json")


def read_config(directory: Path) -> dict[str, Any]:
    """config.json; `ModelError` where it is not JSON."""
    return read_json(directory / "config.json")


def describe(name: str, directory: Path) -> dict[str, Any]:
    """The `model` entry of a manifest. `vocabulary_size` counts embedding rows, padding included."""
    config = read_config(directory)
    text_config = config.get("text_config", config)
    architectures = config.get("architectures") or config.get("model_type")
    if not isinstance(text_config, dict):
        raise ModelError(f"{directory / 'config.json'}: text_config is no object", hint="mend it")
    return {
        "name": name if not Path(name).is_dir() else directory.resolve().name,
        "path": str(directory),
        "architecture": architectures[0] if isinstance(architectures, list) else architectures,
        "weights_sha256": weights_sha256(directory),
        "vocabulary_size": text_config.get("vocab_size"),
        "dtype_stored": stored_dtype(directory),
        **identity(directory),
    }


def weight_files(directory: Path) -> list[Path]:
    """The safetensors files of a checkpoint; `ModelError` when there is none."""
    files = sorted(directory.glob("*.safetensors"))
    if not files:
        raise ModelError(
            f"{directory} has no safetensors weights",
            hint="convert the checkpoint: load it once and save_pretrained(directory)",
        )
    return files


def weights_sha256(directory: Path) -> str:
    """sha256 of the one weights file, or of the lines `<sha256>  <name>` that sha256sum prints for all shards."""
    files = weight_files(directory)
    with ThreadPoolExecutor() as pool:
        digests = list(pool.map(file_sha256, files))
    if len(digests) == 1:
        return digests[0]
    lines = "".join(f"{digest}  {file.name}\n" for digest, file in zip(digests, files, strict=True))
    return hashlib.sha256(lines.encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """sha256 of a file, as sha256sum prints it."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def stored_dtype(directory: Path) -> str:
    """The dtype that most of the stored weights have, as safetensors names it (BF16, F32, F8_E4M3 …)."""
    from safetensors import SafetensorError, safe_open

    bytes_by_dtype: Counter[str] = Counter()
    for path in weight_files(directory):
        try:
            with safe_open(path, framework="numpy") as file:
                for key in file.keys():  # noqa: SIM118 - not a mapping
                    tensor = file.get_slice(key)
                    bytes_by_dtype[tensor.get_dtype()] += int(np.prod(tensor.get_shape()))
        except SafetensorError as error:
            raise ModelError(
                f"{path} is not a readable safetensors file: {error}", hint="download the checkpoint again"
            ) from error
    if not bytes_by_dtype:
        raise ModelError(f"{directory} has no tensors in its weights", hint="download the checkpoint again")
    return bytes_by_dtype.most_common(1)[0][0]


class Tokenizer:
    """The tokenizer of a checkpoint, for prompts that come as text and for text that people read.

    A checkpoint without one is usable as long as prompts come as token ids.
    """

    def __init__(self, directory: Path, trust_remote_code: bool = False) -> None:
        self._directory = directory
        self._pieces: dict[int, str] = {}
        self._tokenizer: Any = None
        self._markers: PromptMarkers | None = None
        self.sha256: str | None = None
        files = [directory / "tokenizer.json"]
        if not files[0].is_file():
            files = [file for name in _TOKENIZER_FILES if (file := directory / name).is_file()]
        if not files:
            return
        from transformers import AutoTokenizer

        try:
            self._tokenizer = AutoTokenizer.from_pretrained(directory, trust_remote_code=trust_remote_code)
        # The tokenizers library raises plain `Exception` for a file that it cannot parse.
        except Exception as error:
            raise ModelError(f"cannot load the tokenizer in {directory}: {error}") from error
        self.sha256 = hashlib.sha256(b"".join(read_bytes(file, TEXT_BYTES) for file in files)).hexdigest()

    @cached_property
    def size(self) -> int:
        """One more than the largest token id it produces; 0 without a tokenizer."""
        return max(self._tokenizer.get_vocab().values(), default=-1) + 1 if self._tokenizer else 0

    def ids_from(self, first: int) -> list[int]:
        """The token ids it produces that are `first` or larger, in rising order."""
        return (
            sorted(value for value in self._tokenizer.get_vocab().values() if value >= first)
            if self._tokenizer
            else []
        )

    @property
    def eos_token_id(self) -> int | None:
        return self._tokenizer.eos_token_id if self._tokenizer else None

    def encode(self, request: Request) -> np.ndarray:
        """The prompt as token ids: given ones as they are, text with special tokens, messages by chat template."""
        if request.prompt_token_ids is not None:
            return np.asarray(request.prompt_token_ids, dtype=np.int32)
        if request.prompt is None:
            raise PromptsError(f"prompt {request.prompt_id} has neither text nor token ids")
        if self._tokenizer is None:
            raise ModelError(
                f"{self._directory} has no tokenizer, and prompt {request.prompt_id} is text",
                hint="give the prompts as prompt_token_ids",
            )
        if isinstance(request.prompt, str):
            return np.array(self._tokenizer(request.prompt)["input_ids"], dtype=np.int32)
        if not self._tokenizer.chat_template:
            raise ModelError(
                f"the tokenizer in {self._directory} has no chat template; prompt {request.prompt_id} is a chat",
                hint="give the prompt as text: a line with `prompt` in place of `messages`",
            )
        return np.array(chat_token_ids(self._tokenizer, request.prompt, request), dtype=np.int32)

    def remarks(self, request: Request, prompt: np.ndarray) -> list[str]:
        """On a prompt that is sampled from; one that is scored was remarked on then."""
        if self._tokenizer is None or request.response_token_ids is not None:
            return []
        if self._markers is None:
            self._markers = PromptMarkers.of(self._tokenizer)
        return self._markers.remarks(request, prompt)

    def text(self, token_ids: np.ndarray) -> str | None:
        """The text of some token ids, special tokens shown."""
        return self._tokenizer.decode(token_ids.tolist()) if self._tokenizer else None

    def pieces(self, token_ids: np.ndarray) -> list[str] | None:
        """Each token decoded by itself; every vocabulary entry is decoded once."""
        if self._tokenizer is None:
            return None
        token_ids = token_ids.tolist()
        for token_id in set(token_ids) - self._pieces.keys():
            self._pieces[token_id] = self._tokenizer.decode([token_id])
        return [self._pieces[token_id] for token_id in token_ids]

    def record(
        self, request: Request, prompt: np.ndarray, response: np.ndarray, observed: Observed, **others: Any
    ) -> SequenceRecord:
        """The record of a sequence, with the texts of its tokens; `others` are further fields of it."""
        return SequenceRecord(
            sequence_id=request.sequence_id,
            prompt_id=request.prompt_id,
            prompt_token_ids=prompt,
            response_token_ids=response,
            observed=observed,
            prompt_text=self.text(prompt),
            prompt_remarks=self.remarks(request, prompt),
            response_pieces=self.pieces(response),
            **{"finish_reason": request.finish_reason or "length"} | others,
        )


def vocabulary_remarks(tokenizer: Tokenizer, vocabulary_size: int) -> list[str]:
    """What is odd of a tokenizer for a model with so many embedding rows; more rows than ids are padding."""
    beyond = tokenizer.ids_from(vocabulary_size)
    if not beyond:
        return []
    ids = "1 id" if len(beyond) == 1 else f"{len(beyond)} ids"
    return [
        f"The tokenizer has {ids} from {beyond[0]} upwards that the model, with {vocabulary_size} embedding rows, "
        "has no row for; a prompt with such an id is refused."
    ]


def check_prompt(
    prompt_id: int, token_ids: np.ndarray, vocabulary_size: int, max_length: int | None, tokenizer_size: int = 0
) -> None:
    """Refuse what no engine can run, naming the prompt; `max_length` must leave room for one more token.

    Ids below `tokenizer_size` may be the model's own tokenizer's, which the hint then says.
    """
    if len(token_ids) == 0:
        raise PromptsError(f"prompt {prompt_id} is empty", hint="remove it from the prompts file")
    outside = [token_id for token_id in token_ids.tolist() if not 0 <= token_id < vocabulary_size]
    if outside:
        own = vocabulary_size <= outside[0] < tokenizer_size
        raise PromptsError(
            f"prompt {prompt_id} has the token id {outside[0]}, outside the vocabulary of {vocabulary_size}",
            hint="the tokenizer has this id but the model no embedding for it: take its text out of the prompt"
            if own
            else "tokenise the prompts with this model's tokenizer",
        )
    if max_length is not None and len(token_ids) >= max_length:
        raise PromptsError(
            f"prompt {prompt_id} has {len(token_ids)} tokens; the model takes {max_length}, the response included",
            hint="shorten the prompt or leave it out",
        )


def check_response(
    request: Request,
    prompt: np.ndarray,
    vocabulary_size: int,
    max_length: int | None,
    *,
    limited_by: str,
    hint: str,
) -> np.ndarray:
    """The response of a request to score, as int32; refuse what no engine can, naming the sequence.

    `max_length` is the most tokens of a sequence, the prompt included, that `limited_by` ("the model") takes, and
    `hint` what helps where there are more; `{length}` in it is how many. Raises `EngineError` where there is no
    response, `ModelError` for one of another model.
    """
    response, where = request.response_token_ids, f"sequence {request.sequence_id}"
    if response is None or len(response) == 0:
        raise EngineError(f"{where} has no response to score")
    if response.min() < 0 or response.max() >= vocabulary_size:
        raise ModelError(
            f"{where} has token ids up to {response.max()}, outside the vocabulary of {vocabulary_size}: it was "
            "sampled from another model",
            hint="score a trace with the model that sampled it",
        )
    length = len(prompt) + len(response)
    if max_length is not None and length > max_length:
        raise ModelError(
            f"{where} has {length} tokens, {limited_by} takes {max_length}", hint=hint.format(length=length)
        )
    return np.asarray(response, dtype=np.int32)


def stop_token_ids(directory: Path, tokenizer: Tokenizer) -> list[int]:
    """The end-of-sequence ids: of generation_config.json, else of config.json, else of the tokenizer."""
    path = directory / "generation_config.json"
    sources: Sequence[Any] = (
        read_json(path).get("eos_token_id") if path.is_file() else None,
        read_config(directory).get("eos_token_id"),
        tokenizer.eos_token_id,
    )
    for value in sources:
        if value is not None:
            ids = value if isinstance(value, list) else [value]
            if not all(type(token_id) is int and token_id >= 0 for token_id in ids):
                raise ModelError(
                    f"the eos_token_id of {directory} is {str(value)[:40]}, no token id",
                    hint="mend generation_config.json or config.json",
                )
            return sorted(ids)
    return []
