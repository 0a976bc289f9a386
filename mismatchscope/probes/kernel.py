"""Kernels: attention, compilation, train mode and the rest that computes the same thing in another order.

Each setting is held against the SPEC as it is given, one at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ..engines.spec import resolve_options
from ..errors import ConfigError
from ..machine import hardware
from .conclusions import MeasuredCell, by_computation, differing, farthest, gap, measured, nothing_tried
from .options import also, changed_keys, varied
from .plan import Comparison, Plan, Probe, Question
from .sides import Computation

if TYPE_CHECKING:
    from ..reports.pair_fields import Completions, ProbeCell, ProbeConclusion


_PRECISIONS = ("highest", "high", "medium")
"""Of float32 matrix products."""


def _usual(computation: Computation) -> Sequence[str]:
    """What can be switched of an engine on this machine; devices that share a layer where they are asked for."""
    options, gpus = resolve_options(computation.spec), bool(hardware()["gpus"])
    if computation.spec.served:
        return ()
    if computation.spec.name == "transformers":
        return [*_of_transformers(options, computation.path, gpus)]
    if computation.spec.name == "vllm":
        backends = ("FLASH_ATTN", "FLASHINFER", "TRITON_ATTN", "FLEX_ATTENTION") if gpus else ()
        attention = (f"attention_backend={name}" for name in backends)
        return [_toggled(options, "enforce_eager"), *_norm_and_rotary(options), *attention]
    if computation.spec.name == "sglang" and gpus:  # without one it has a single attention, and compiles nothing
        backends = ("fa3", "flashinfer", "triton", "torch_native")
        switches = ("disable_cuda_graph", "enable_torch_compile", "enable_deterministic_inference")
        switched = (_toggled(options, key) for key in switches)
        return [*switched, "rl_on_policy_target=fsdp", *(f"attention_backend={name}" for name in backends)]
    return ()


def _norm_and_rotary(options: Any) -> list[str]:
    """vLLM's own kernels of norms and rotary embeddings in place of torch's, which it runs where it compiles, or
    the other way round; none where the SPEC describes the compilation itself."""
    if "compilation_config" in options.arguments():
        return []
    sign = "-" if options.enforce_eager else "+"
    return [f'compilation_config={{"custom_ops":["{sign}{name}"]}}' for name in ("rms_norm", "rotary_embedding")]


def _of_transformers(options: Any, path: str, gpus: bool) -> Iterator[str]:
    yield from ("attn=eager", "attn=sdpa")
    if path == "prefill" or gpus:  # its decoding does not compile for a CPU
        yield "attn=flex"
    yield from (_toggled(options, "compile"), _toggled(options, "deterministic"))
    if "float32" in (options.dtype, options.lm_head, options.router):
        yield from (f"matmul_precision={name}" for name in _PRECISIONS if name != options.matmul_precision)
    if gpus and options.dtype != "float32":
        yield _toggled(options, "reduced_precision_reduction")
    if path != "prefill":
        return  # decoding is in eval mode, always
    if options.train_mode:
        yield "train_mode=false+gradient_checkpointing=false"
        yield _toggled(options, "gradient_checkpointing")
    else:
        yield from ("train_mode=true", "train_mode=true+gradient_checkpointing=true")
    if not gpus and not options.fsdp:  # ranks share a CPU, and each takes a GPU of its own
        yield "fsdp=2"


def _toggled(options: Any, key: str) -> str:
    return f"{key}={'false' if getattr(options, key) else 'true'}"


def _plan(question: Question) -> Plan:
    sides = varied(question, _usual)
    if not any(len(settings) > 1 for settings in sides):
        raise ConfigError(
            "There is no kernel to try that the engines do not run already.",
            hint="--values key=value, as in a SPEC",
        )
    return Plan(
        factor="the kernels",
        comparisons=[Comparison(given, setting) for given, *others in sides for setting in others],
        keys=tuple(dict.fromkeys(key for settings in sides for key in changed_keys(settings))),
    )


def _conclude(cells: Sequence[ProbeCell], completions: Sequence[Completions]) -> list[ProbeConclusion]:
    conclusions: list[ProbeConclusion] = []
    for computation, own in by_computation(measured(cells)).items():
        conclusions += _of_one_side(computation, own)
    return conclusions or [nothing_tried()]


def _of_one_side(computation: str, own: Sequence[MeasuredCell]) -> Iterator[ProbeConclusion]:
    """What moves it most, and what not by a bit."""
    from ..reports.pair_fields import ProbeConclusion

    if varying := differing(own):
        cell, pair = farthest(varying)
        most = "what moves it most" if len(varying) > 1 else "what moves it"
        sentence = f"{computation}: {most} is {cell.setting}, {gap(pair)}{also(varying, (cell, pair))}"
        yield ProbeConclusion("moves_most", f"{sentence}.")
    if same := [cell.setting for cell, pair in own if pair.identical]:
        yield ProbeConclusion("not_by_a_bit", f"{computation}: not a bit is moved by {', '.join(same)}.")


PROBE = Probe(_plan, _conclude)
