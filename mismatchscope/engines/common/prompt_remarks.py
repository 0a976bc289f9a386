"""What is odd about the tokens of a prompt: a special token twice, markers of a template where none should be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...records import Request

# How prompts begin that a chat template has been put around already, of the templates that are most in use.
_KNOWN_MARKERS = (
    *("<|im_start|>", "<|start_header_id|>", "<|begin_of_text|>", "<start_of_turn>", "<bos>", "<s>", "[INST]"),
    *("<|system|>", "<|user|>", "<|start|>", "<|turn>", "<｜begin▁of▁sentence｜>", "<｜User｜>", "[gMASK]"),
)


@dataclass(frozen=True)
class PromptMarkers:
    """What a prompt of a tokenizer may begin with. `own` are markers of its chat template, `foreign` of others'."""

    bos: str | None
    bos_id: int | None
    own: tuple[str, ...]
    foreign: tuple[str, ...]
    has_template: bool

    @classmethod
    def of(cls, tokenizer: Any) -> PromptMarkers:
        # Not every kind of tokenizer has all of these.
        bos, bos_id = getattr(tokenizer, "bos_token", None), getattr(tokenizer, "bos_token_id", None)
        template = str(getattr(tokenizer, "chat_template", None) or "")
        added = getattr(tokenizer, "added_tokens_decoder", {})
        known = {*_KNOWN_MARKERS, *(str(token) for token in added.values() if token.special)} - {bos}
        vocabulary = tokenizer.get_vocab()
        return cls(
            bos=bos,
            bos_id=bos_id,
            own=tuple(sorted(marker for marker in known if marker in template)),
            foreign=tuple(m for m in _KNOWN_MARKERS if m not in template and m not in vocabulary),
            has_template=bool(template),
        )

    def remarks(self, request: Request, token_ids: np.ndarray) -> list[str]:
        """A sentence each: what is odd about the tokens of a request's prompt, and how to mend it."""
        if isinstance(request.prompt, list):
            return [*self._on_bos(token_ids, None), *self._on_chat(request.prompt, request.template_arguments)]
        return list(self._on_bos(token_ids, request.prompt)) or list(self._on_text(request.prompt or ""))

    def _on_bos(self, token_ids: np.ndarray, text: str | None) -> Iterator[str]:
        first = token_ids[:2].tolist()
        if self.bos_id is None or first != [self.bos_id, self.bos_id]:
            return
        said = f"the tokens begin [{first[0]}, {first[1]}, …], the beginning of a sequence twice"
        if text is not None and text.lstrip().startswith(str(self.bos)):
            yield f"{said}: the text begins with {self.bos}, and the tokenizer adds one. Leave it out of the text."
        else:
            yield f"{said}. Give prompt_token_ids that have it once."

    def _on_text(self, text: str) -> Iterator[str]:
        own, foreign = self._marker_of(text)
        if own:
            yield (
                f"the text begins with {own}, a marker of this model's chat template. It is tokenised as it "
                "stands, and no template is put around it; as messages the model's own would be."
            )
        if foreign:
            yield self._on_foreign("the text", foreign)

    def _on_chat(self, messages: list[dict[str, Any]], arguments: dict[str, Any]) -> Iterator[str]:
        if self.bos and any(text.lstrip().startswith(self.bos) for text in _contents(messages)):
            yield f"a message begins with {self.bos}, which stands for the beginning of a sequence. Leave it out."
        for own, foreign in {self._marker_of(text): None for text in _contents(messages)}:
            if own:
                yield (
                    f"a message begins with {own}, which the chat template writes itself: it seems to have been "
                    "put around the message once already. Give the message alone, or all of it as a text."
                )
            if foreign:
                yield self._on_foreign("a message", foreign)
        new_turn = arguments.get("add_generation_prompt", not arguments.get("continue_final_message"))
        if messages[-1]["role"] == "assistant" and new_turn and "add_generation_prompt" not in arguments:
            yield (
                "the chat ends with a message of the assistant, and another turn of the assistant begins behind "
                'it. Leave the answer out, or go on with it: chat_template_kwargs {"continue_final_message": true}.'
            )

    def _on_foreign(self, what: str, marker: str) -> str:
        remedy = "Leave that template's markers out"
        if self.has_template:
            remedy += " and give the messages: this model's own is put around them"
        return (
            f"{what} begins with {marker}, a marker of other models' chat templates, which this tokenizer takes "
            f"for ordinary text. {remedy}."
        )

    def _marker_of(self, text: str) -> tuple[str | None, str | None]:
        """The marker of this model's template that a text begins with, and that of another's."""
        text = text.lstrip()
        if self.bos and text.startswith(self.bos):
            text = text.removeprefix(self.bos).lstrip()
        own = max((marker for marker in self.own if text.startswith(marker)), key=len, default=None)
        foreign = max((marker for marker in self.foreign if text.startswith(marker)), key=len, default=None)
        return own, None if own else foreign


def _contents(messages: list[dict[str, Any]]) -> Iterator[str]:
    for message in messages:
        content = message.get("content")
        if isinstance(content, str):
            yield content
        elif isinstance(content, list):
            yield "".join(part["text"] for part in content)
