"""The probes by name, imported when one is used.

To add one, write a file with a `Probe` and add one line here. A package of yours adds one without touching this
file, through the entry-point group `mismatchscope.probes`: the name of a module's `Probe`, as `module:NAME`.
"""

from __future__ import annotations

import difflib
import importlib
from importlib.metadata import entry_points
from typing import NamedTuple

from ..errors import ConfigError
from .plan import Probe

ENTRY_POINT_GROUP = "mismatchscope.probes"


class Entry(NamedTuple):
    """Where a probe is, what it asks, and a command that a person can type."""

    path: str
    question: str
    example: str


PROBES: dict[str, Entry] = {
    "repeat": Entry(
        "mismatchscope.probes.repeat:PROBE",
        "Does the same computation give the same bits again?",
        "mismatchscope probe repeat --behavior vllm -o repeat",
    ),
    "batch": Entry(
        "mismatchscope.probes.batch:PROBE",
        "Does it matter what else is in a batch?",
        "mismatchscope probe batch --values 2,8,32 -o batch",
    ),
    "path": Entry(
        "mismatchscope.probes.path:PROBE",
        "Is the gap between decode and prefill, or between the engine and the trainer?",
        "mismatchscope probe path --behavior vllm -o path",
    ),
    "version": Entry(
        "mismatchscope.probes.version:PROBE",
        "Which version of an engine, or which SPEC, is closest to the trainer?",
        "mismatchscope probe version --behavior vllm==0.32.0 --values 0.27.1 --values sglang -o version",
    ),
    "dtype": Entry(
        "mismatchscope.probes.dtype:PROBE",
        "Which precision is far from which, and from float32?",
        "mismatchscope probe dtype --values bfloat16,float16 -o dtype",
    ),
    "kernel": Entry(
        "mismatchscope.probes.kernel:PROBE",
        "Which kernels move the policy, and which not by a bit?",
        "mismatchscope probe kernel --values attn=eager,compile=true -o kernel",
    ),
    "length": Entry(
        "mismatchscope.probes.length:PROBE",
        "Does the gap add up along a response as a random walk or as a bias, and how far?",
        "mismatchscope probe length --values 0.1,0.5 --max-new-tokens 256 -o length",
    ),
    "layers": Entry(
        "mismatchscope.probes.layers:PROBE",
        "Inside the model, where do both sides come apart, and which stage makes the difference?",
        "mismatchscope probe layers --behavior vllm -o layers",
    ),
    "sampling": Entry(
        "mismatchscope.probes.sampling:PROBE",
        "Are the trainer's log-probs of the distribution that tokens were drawn from?",
        "mismatchscope probe sampling --temperature 0.7 --top-p 0.9 --values min_p=0.05 -o sampling",
    ),
    "attribute": Entry(
        "mismatchscope.probes.attribute:PROBE",
        "How much of the gap does each of the settings that differ make?",
        "mismatchscope probe attribute --behavior transformers:attn=eager,dtype=float16 -o attribute",
    ),
    "bisect": Entry(
        "mismatchscope.probes.bisect:PROBE",
        "Which of the settings that differ makes the gap?",
        "mismatchscope probe bisect --behavior transformers:attn=eager,dtype=bfloat16 -o bisect",
    ),
    "context": Entry(
        "mismatchscope.probes.context:PROBE",
        "Is the gap in the weights, in attention, or in what it sees?",
        "mismatchscope probe context --values 1,16,bos -o context",
    ),
    "routing": Entry(
        "mismatchscope.probes.routing:PROBE",
        "Do both sides choose the same experts, and how much of the gap is that they do not?",
        "mismatchscope probe routing --model demo:moe --behavior vllm:enforce_eager=true -o routing",
    ),
}


def probe_names() -> list[str]:
    return [*PROBES, *(point.name for point in entry_points(group=ENTRY_POINT_GROUP))]


def find_probe(name: str) -> Probe:
    """Raises `ConfigError` for a name that nobody registered."""
    installed = {point.name: point.value for point in entry_points(group=ENTRY_POINT_GROUP)}
    path = PROBES[name].path if name in PROBES else installed.get(name)
    if path is None:
        close = difflib.get_close_matches(name, probe_names(), n=1)
        hint = f"did you mean {close[0]}?" if close else f"the probes are {', '.join(probe_names())}"
        raise ConfigError(f"There is no probe '{name}'.", hint=hint)
    module, _, attribute = path.partition(":")
    return getattr(importlib.import_module(module), attribute)
