"""What was seen inside a model of one sequence, in a file: a tensor a stage (`stages`), in the engine's dtype.

    internals-<sequence_id>.safetensors     [T, width] each, T all tokens of prompt and response

What could not be seen is in the file's metadata, with the reason.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...durable import write_atomic
from ...errors import TraceError
from ...measures.tensor_difference import Weight

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Internals:
    """The tensors by stage, mapped, not read; and why other stages that were asked for are not there."""

    stages: dict[str, Weight]
    unmatched: dict[str, str]


def internals_path(parts: Path, sequence_id: int) -> Path:
    return parts / f"internals-{sequence_id}.safetensors"


def finished_internals(parts: Path) -> dict[int, Path]:
    """The files on disk by sequence id."""
    return {
        int(found[1]): path
        for path in sorted(parts.glob("internals-*.safetensors"))
        if (found := re.fullmatch(r"internals-(\d+)", path.stem))
    }


def write_internals(
    parts: Path, sequence_id: int, stages: Mapping[str, Tensor], unmatched: Mapping[str, str]
) -> None:
    """Write the file of one sequence, whole or not at all; `OSError` when the disk is full."""
    from safetensors.torch import save

    whole = {name: tensor.contiguous() for name, tensor in stages.items()}
    content = save(whole, metadata={"unmatched": json.dumps(dict(unmatched))})
    write_atomic(internals_path(parts, sequence_id), content, durable=False)


def read_internals(path: Path) -> Internals:
    """Read what `write_internals` wrote. Raises `TraceError` for a file that is none of its."""
    from safetensors import SafetensorError, safe_open

    from .stored_weights import mapped

    try:
        with safe_open(path, framework="numpy") as file:
            unmatched = json.loads((file.metadata() or {})["unmatched"])
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise TraceError(f"{path} cannot be read: {error}.") from error
    return Internals(mapped(path), unmatched)
