"""Tokenizers of words with a chat template: what they are given and what they make of it can both be read."""

from __future__ import annotations

from pathlib import Path

from mismatchscope.engines.common.checkpoint import Tokenizer

# With tools, tool calls and a switch, and contents that are texts: as most templates for text alone.
TOOL_TEMPLATE = """\
{%- if tools %}tools{% for tool in tools %} {{ tool | tojson }}{% endfor %} ; {% endif -%}
{%- for message in messages %}<|im_start|>{{ message.role + ' ' }}
{%- if message.content is string %}{{ message.content }}{% endif %}
{%- for call in message.tool_calls or [] %} call {{ call.function.name + ' ' }}
{{- call.function.arguments | tojson }}{% endfor %}
{{- ' <|im_end|> ' }}{% endfor -%}
{%- if add_generation_prompt %}<|im_start|>assistant
{%- if enable_thinking is false %} no-thoughts{% endif %}{% endif -%}
"""

# Of a model that sees pictures: it goes through the parts.
PARTS_TEMPLATE = """\
{%- for message in messages %}<|im_start|>{{ message.role + ' ' }}
{%- if message.content is string %}{{ message.content }}{% else %}
{%- for part in message.content %}{{ part.text }}{% endfor %}{% endif %} <|im_end|> {% endfor -%}
"""

# Knows nothing but texts: adding anything else to one is an error.
PLAIN_TEMPLATE = "{% for message in messages %}{{ message['role'] + ' ' + message['content'] + ' . ' }}{% endfor %}"


def save_chat_tokenizer(directory: Path, template: str | None, *, bos: str | None = None) -> Path:
    """One token a word; the words of the markers are special tokens, and `bos` is put before every text."""
    from tokenizers import Tokenizer as Words
    from tokenizers import models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = Words(models.WordLevel({"<unk>": 0, "hello": 1, "user": 2}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = ["<|im_start|>", "<|im_end|>"] if template and "<|im_start|>" in template else []
    words.add_special_tokens([*special, *([bos] if bos else [])])
    if bos:
        words.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, words.token_to_id(bos))]
        )
    wrapped = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", bos_token=bos)
    wrapped.chat_template = template
    directory.mkdir(parents=True, exist_ok=True)
    wrapped.save_pretrained(directory)
    return directory


def chat_tokenizer(directory: Path, template: str | None, *, bos: str | None = None) -> Tokenizer:
    return Tokenizer(save_chat_tokenizer(directory, template, bos=bos))
