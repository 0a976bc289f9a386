"""Is there room for a second model beside the first, and what need not be there twice."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import EngineError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from .options import TransformersOptions

_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4, "autocast": 4}


def check_room(first: PreTrainedModel, second: TransformersOptions) -> None:
    """Raise `EngineError` where the weights of a second model do not fit beside those of the first."""
    needed = first.num_parameters() * _BYTES[second.dtype]
    free = _free_bytes(first.device)
    if free is not None and needed > free:
        raise EngineError(
            f"two models do not fit side by side: the weights of the second need {needed / 2**30:.2g} GiB, and "
            f"{free / 2**30:.2g} GiB are free",
            hint="device_map=auto where there are several devices, or a smaller model",
        )


def share_weights(first: PreTrainedModel, second: PreTrainedModel) -> None:
    """Let the second model use the tensors of the first that are equal to its own, bit for bit."""
    import torch

    tensors = dict(first.named_parameters())
    for name, own in second.named_parameters():
        other = tensors.get(name)
        if other is None or (own.dtype, own.device, own.shape) != (other.dtype, other.device, other.shape):
            continue
        if torch.equal(own, other):
            own.data = other.data


def _free_bytes(device: torch.device) -> int | None:
    """Of the memory that the weights go to; None where nobody says."""
    import torch

    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)
