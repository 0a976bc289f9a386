"""What is inside a model as vLLM runs it: hooks in the process that computes (`LLM.collective_rpc`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..common.internals import Recorder
from ..common.stage_files import write_internals
from ..common.stages import EXPERT_IDS, LOGITS, NORM, Architecture, Site, asked_for, kind_of
from .listener import PREFILL_CHUNK, for_any_states


def begin(worker: Any, stages: Sequence[str]) -> None:
    """Keep what passes these stages from now on."""
    runner = worker.model_runner
    wanted = () if not stages else (*stages, NORM) if LOGITS in stages else tuple(stages)  # the head reads the norm
    runner.mismatchscope_inside = _VllmRecorder(runner.model, "vllm", wanted).__enter__()


@torch.inference_mode()
def finish(worker: Any, stages: Sequence[str], parts: str, sequence_id: int, length: int) -> None:
    """Write what was kept of a sequence of that length; the first process does."""
    runner = worker.model_runner
    recorder = runner.mismatchscope_inside
    kept, unmatched = recorder.stages(length), recorder.unmatched
    if asked_for(LOGITS, stages):
        compute = for_any_states(runner, runner.model.compute_logits)
        device = next(runner.model.parameters()).device
        if NORM in kept:
            parts_NV = [compute(rows.to(device)) for rows in kept[NORM].split(PREFILL_CHUNK)]
            if parts_NV[0] is not None:  # which is so in the first process alone, with some vLLMs
                kept[LOGITS] = torch.cat(parts_NV).cpu()
        else:
            unmatched = unmatched | {LOGITS: "the states that the head reads were not found"}
    if worker.rank == 0:
        kept = {stage: value for stage, value in kept.items() if asked_for(stage, stages)}
        write_internals(Path(parts), sequence_id, kept, unmatched)


def end(worker: Any) -> None:
    worker.model_runner.mismatchscope_inside.__exit__()


class _VllmRecorder(Recorder):
    """vLLM chooses the experts of a token in a function, not in a module; where that is depends on its version."""

    def __init__(self, network: torch.nn.Module, architecture: Architecture, stages: Sequence[str]) -> None:
        super().__init__(network, architecture, stages)
        for stage, site in list(self.sites.items()):
            if site.part == "selection" and _selector(self._modules[site.module]) is None:
                del self.sites[stage], self._seen[stage]
                self.unmatched[stage] = "the kernel that computes the experts chooses them by itself"

    def _listen(self, stage: str, site: Site, module: torch.nn.Module) -> Callable[[], None]:
        if site.part != "selection":
            return super()._listen(stage, site, module)
        selector = _selector(module)
        assert selector is not None, "sites without one were left out"
        place, name = selector
        select = getattr(place, name)
        inside = False

        def selecting(*args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
            weights, ids = select(*args, **kwargs)
            if inside:
                self.keep(stage, ids if kind_of(stage) == EXPERT_IDS else weights)
            return weights, ids

        def enter(*_: Any) -> None:
            nonlocal inside
            inside = True

        def leave(*_: Any) -> None:
            nonlocal inside
            inside = False

        hooks = [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
        setattr(place, name, selecting)

        def undo() -> None:
            setattr(place, name, select)
            for hook in hooks:
                hook.remove()

        return undo


def _selector(module: torch.nn.Module) -> tuple[Any, str] | None:
    """The object and its function that choose the experts of a mixture; None where a kernel does it by itself."""
    inner = list(module.modules())
    monolithic = any(getattr(getattr(each, "quant_method", each), "is_monolithic", False) for each in inner)
    routers = [router for each in inner if hasattr(router := getattr(each, "router", None), "select_experts")]
    if routers and not monolithic:
        return routers[0], "select_experts"
    if torch.accelerator.is_available():
        return None
    try:
        from vllm.model_executor.layers.fused_moe import cpu_fused_moe  # 0.27
    except ImportError:
        return None
    return (cpu_fused_moe, "select_experts") if hasattr(cpu_fused_moe, "select_experts") else None
