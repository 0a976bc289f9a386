"""The model and the prompts that a run names; those shipped with this package among them."""

from __future__ import annotations

from ..config import AuditSettings
from ..defaults import DEFAULT_PROMPTS
from ..demo import model_path, prompts_path
from ..errors import ConfigError
from ..prompts.files import load_prompts
from ..prompts.rows import Prompt

_EMBEDDED = "demo:"


def resolve_model(model: str) -> str:
    """`demo:dense` as the directory of the embedded model; anything else is a path or hub id and stays."""
    return str(model_path(model.removeprefix(_EMBEDDED))) if model.startswith(_EMBEDDED) else model


def chosen_prompts(settings: AuditSettings) -> list[Prompt]:
    """The prompts of the file that is named, or the first of those shipped with the embedded models."""
    if settings.prompts is not None:
        return load_prompts(settings.prompts, settings.limit, settings.prompt_column)
    if settings.prompt_column is not None:
        raise ConfigError(
            f"There is no prompts file to take the column {settings.prompt_column!r} from.",
            hint="add --prompts FILE",
        )
    return load_prompts(prompts_path(), settings.limit or DEFAULT_PROMPTS)
