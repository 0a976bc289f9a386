"""What the columns of a table are: a TOML file that a person writes for a log of a form that nobody else has."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ..errors import ConfigError
from ..input_files import check_depth, misfit, read_text, reason
from .columns import BY_TOKEN, COLUMNS, LOGPROBS

_BYTES = 2**20  # typed by a person

LARGEST_SHIFT = 64


class MappedColumn(BaseModel):
    """One column: what the table calls it, and how its values are to be taken.

    shift: value [t] of its lists is of token t + shift.
    scale: of log-probs: natural logarithms, those of base 2 or 10, or probabilities.
    kept: of a mask: the value of tokens that the trainer counts.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    column: str = Field(min_length=1)
    shift: int = Field(0, ge=-LARGEST_SHIFT, le=LARGEST_SHIFT)
    scale: Literal["natural", "log2", "log10", "probability"] = "natural"
    kept: Literal[0, 1] = 1

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, value: Any) -> Any:
        return {"column": value} if isinstance(value, str) else value


class ColumnMap(BaseModel):
    """The whole file.

    rows: a row is a response with lists, or a token; tokens of a response then follow one another and have the same
        `sequence_id`.
    lists: are of the response, or of the whole sequence, the prompt in front. Then the response begins behind as
        many tokens as the column `prompt_length` says, or else at the first token that the mask keeps.
    response_length: the column that says how many tokens a response has; what follows in its lists is padding.
    columns: by our name of `logs.columns`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    rows: Literal["responses", "tokens"] = "responses"
    lists: Literal["response", "sequence"] = "response"
    prompt_length: str | None = Field(None, min_length=1)
    response_length: str | None = Field(None, min_length=1)
    columns: dict[str, MappedColumn] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _is_coherent(self) -> ColumnMap:
        unknown = [name for name in self.columns if name not in COLUMNS]
        if unknown:
            raise ValueError(f"[columns] has {unknown[0]}, which is none of {', '.join(COLUMNS)}")
        if len(set(LOGPROBS.values()).intersection(self.columns)) < 2:
            raise ValueError(f"[columns] must name two of {', '.join(LOGPROBS.values())}")
        for name, column in self.columns.items():
            if column.shift and name not in BY_TOKEN:
                raise ValueError(f"{name} has no value a token, so it has no shift")
            if column.scale != "natural" and name not in LOGPROBS.values():
                raise ValueError(f"{name} holds no log-probs, so it has no scale")
            if not column.kept and name != "mask":
                raise ValueError(f"{name} is no mask, so kept is not for it")
        if self.lists == "sequence" and self.prompt_length is None and "mask" not in self.columns:
            raise ValueError(
                "lists of whole sequences need prompt_length, or a mask, which say where responses begin"
            )
        if self.rows == "tokens" and (self.lists == "sequence" or self.prompt_length or self.response_length):
            raise ValueError("where a row is a token there are no lists, and no lengths of them")
        if self.rows == "tokens" and "sequence_id" not in self.columns:
            raise ValueError("where a row is a token, sequence_id must say which of them are one response")
        return self

    def names(self) -> list[str]:
        """The table's columns that are read."""
        lengths = [name for name in (self.prompt_length, self.response_length) if name is not None]
        return list(dict.fromkeys([*(column.column for column in self.columns.values()), *lengths]))


def load_column_map(path: Path) -> ColumnMap:
    """Read a column map; `ConfigError` names the key that is wrong."""
    try:
        data = tomllib.loads(read_text(path, _BYTES))
        check_depth(data)
    except OSError as error:
        raise ConfigError(f"The column map {path} cannot be read: {reason(error)}.", hint="check --map") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not TOML: {reason(error)}.", hint="check --map") from None
    try:
        return ColumnMap.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        why = misfit(first).removeprefix("Value error, ")
        raise ConfigError(
            f"{path}: {f'{key}: ' if key else ''}{why}.",
            hint="docs/logs.md has a column map for each kind of table",
        ) from None


def our_own_names() -> ColumnMap:
    """The map of a table that has our names."""
    return ColumnMap(columns={name: MappedColumn(column=name) for name in COLUMNS})
