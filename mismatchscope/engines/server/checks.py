"""What is found out about a server before anything runs on it: the model, its tokenizer, what its log-probs are."""

from __future__ import annotations

import difflib
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import ModelError
from ...records import Request, Sampling
from ..common.checkpoint import Tokenizer
from .credentials import shown
from .failures import HttpError
from .logprobs import TokenLogprobs
from .responses import parsing
from .stages import Stage
from .values import UnusableValue, integer

if TYPE_CHECKING:
    from .client import Client

PROBE_ENTRIES = 5
"""Log-probs a token that even the most cautious server lists."""

_NAMES_SHOWN = 10

_TEXT = 'Naïve: f(x) = 3.14 * x + "42"; 东京 — done?\n\tYes.'


async def choose_model(client: Client, wanted: str, local: str) -> tuple[dict[str, Any], set[str]]:
    """The entry of /v1/models for the model called `wanted`, else the one named like `local`, else the only one.

    With it come all names of that model: vLLM answers with the first one, whichever was asked for.
    """
    models = await client.get("/v1/models")
    with parsing(client.url, "of OpenAI's API"):
        cards = {_name(card): card for card in models["data"]}
        if len(cards) < len(models["data"]):
            raise UnusableValue("lists a model twice")
    names = ", ".join(list(cards)[:_NAMES_SHOWN]) + (", …" if len(cards) > _NAMES_SHOWN else "") or "none"
    if wanted and wanted not in cards:
        close = difflib.get_close_matches(wanted, cards, n=1)
        raise ModelError(
            f"{client.url} does not serve the model {wanted}; it has {names}.",
            hint=f"did you mean model={close[0]}?" if close else "name one of them with model=",
        )
    name = wanted or (local if local in cards else None)
    roots = {str(card["root"]) if card.get("root") is not None else None for card in cards.values()}
    if name is None and len(cards) > 1 and (len(roots) > 1 or None in roots):
        raise ModelError(f"{client.url} serves several models: {names}.", hint="name one of them with model=")
    if not cards:
        raise ModelError(f"{client.url} serves no model.")
    card = cards[name or next(iter(cards))]
    same = {other for other in cards if cards[other].get("root") == card.get("root") is not None}
    return card, same | {card["id"]}


def _name(card: dict[str, Any]) -> str:
    """The name of a model, which requests repeat and traces record."""
    name = card["id"]
    if not isinstance(name, str) or shown(name) != name:
        raise UnusableValue("names a model by what is no name, or by a key")
    return name


def max_length(url: str, card: dict[str, Any]) -> int | None:
    """The longest sequence that a server takes; None where it does not say."""
    with parsing(url, "of OpenAI's API"):
        stated = card.get("max_model_len")
        return None if stated is None else integer(stated, "max_model_len", least=1)


def check_vocabulary_size(url: str, served: int | None, local: int | None) -> int:
    """The number of ids; `ModelError` where the server has another one than the configuration here."""
    size = served or local
    if size is None:
        raise ModelError("config.json has no vocab_size.", hint="pass --model the model that is served")
    if local is not None and size != local:
        raise ModelError(
            f"{url} serves a model of {size} token ids, --model has {local}: they are two models.",
            hint="pass --model the model that is served",
        )
    return size


async def check_tokenizer(client: Client, served_name: str, tokenizer: Tokenizer) -> bool:
    """Whether the server was seen to tokenise as we do; False where one of the two has no tokenizer to compare.

    Raises `ModelError` when it does not.
    """
    if tokenizer.sha256 is None:
        return False
    try:
        tokenized = await client.post("/tokenize", {"model": served_name, "prompt": _TEXT}, retries=0)
    except HttpError:
        return False
    ids = tokenized.get("tokens") if isinstance(tokenized, dict) else None
    if not isinstance(ids, list):
        return False
    if ids != _encode(tokenizer):
        raise ModelError(
            f"{client.url} tokenises otherwise than the tokenizer of --model: it serves another model.",
            hint="pass --model the model that is served",
        )
    return True


def probe_prompts(tokenizer: Tokenizer, vocabulary: int) -> list[np.ndarray]:
    """A few short prompts of ordinary tokens."""
    ids = _encode(tokenizer) if tokenizer.sha256 else []
    if not ids or max(ids) >= vocabulary:
        ids = (np.arange(1, 9) * (vocabulary // 10)).tolist()
    return [np.asarray(ids[:length], dtype=np.int32) for length in (2, 4, 6, 8)]


async def find_stage(
    sample_first: Callable[[np.ndarray, Sampling], Awaitable[TokenLogprobs]], prompts: Sequence[np.ndarray]
) -> Stage | None:
    """Which transforms a server's log-probs have gone through, seen from what they do to them; None: unclear.

    `sample_first` gives the log-probs of the first token behind a prompt. Twice the temperature halves the gap
    between the first and the last of the most probable ids; a top-p that the best id fills gives it log-prob 0.
    """
    for prompt in prompts:
        raw_K = _best(await sample_first(prompt, Sampling(max_new_tokens=1)))
        gap = raw_K[0] - raw_K[-1]
        if not gap > 0.5 or raw_K[0] > -0.02:
            continue  # too even, or too sure, to show a difference
        hot_K = _best(await sample_first(prompt, Sampling(max_new_tokens=1, temperature=2.0)))
        cut_K = _best(await sample_first(prompt, Sampling(max_new_tokens=1, top_p=1e-3)))
        if len(hot_K) != len(raw_K) or not len(cut_K):
            return None
        tempered = hot_K[0] - hot_K[-1] < 0.75 * gap
        truncated = cut_K[0] > 0.5 * raw_K[0]
        if truncated:
            return "processed" if tempered else None
        return "tempered" if tempered else "raw"
    return None


def _best(logprobs: TokenLogprobs) -> np.ndarray:
    """The log-probs of the most probable ids in falling order."""
    logprob_N = logprobs.logprobs_TN[0]
    return -np.sort(-logprob_N[np.isfinite(logprob_N)])[:PROBE_ENTRIES]


def _encode(tokenizer: Tokenizer) -> list[int]:
    return tokenizer.encode(Request(0, 0, prompt=_TEXT)).tolist()
