"""What runs inside SGLang's scheduler process: its own main function, and the hooks that feed `capture`.

SGLang samples outside its CUDA graphs, in `ModelRunner.sample`. A hook of its plugin registry takes that place, so
decoding is SGLang's own up to the logits. Prompts to be scored pass a forward hook on the logits processor (the
argument `forward_hooks`), which puts the model's own head on the states that predict response tokens. With tensor
parallelism every rank does all of it, because each samples for itself and holds a part of the head; the first one
records.

Shapes: S requests of a step, P tokens of a pass over prompts, N rows that are scored, H hidden, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ...errors import EngineError, ModelError
from .capture import Capture
from .exchange import Batch, Exchange, parse_request_id
from .internals import Inside


def run_scheduler(directory: str, *args: Any) -> None:
    """The main function of a scheduler process: SGLang's own, with the hooks in place."""
    from sglang.srt.managers.scheduler import run_scheduler_process
    from sglang.srt.plugins.hook_registry import HookRegistry, HookType

    listener = _listener(directory)
    for target, hook in (
        ("sglang.srt.managers.scheduler.Scheduler.__init__", listener.start),
        ("sglang.srt.model_executor.model_runner.ModelRunner.forward", listener.forward),
        ("sglang.srt.model_executor.model_runner.ModelRunner.sample", listener.sample),
    ):
        HookRegistry.register(target, hook, HookType.AROUND)
    # SGLang's LoRA asks for pinned memory, which there is none of without an accelerator.
    unpinned = getattr(args[0], "lora_paths", None) and not torch.accelerator.is_available()
    with _Unpinned() if unpinned else nullcontext():
        run_scheduler_process(*args)


class _Unpinned(TorchFunctionMode):
    """Torch without pinned memory: whatever asks for it gets ordinary memory."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.Tensor.pin_memory:
            return args[0]
        return func(*args, **{key: value for key, value in (kwargs or {}).items() if key != "pin_memory"})


def prefill_hook(config: dict[str, str]) -> Callable[[Any, tuple[Any, ...], Any], None]:
    """Factory of the forward hook, as `forward_hooks` names it."""
    return _listener(config["directory"]).prefill


@cache
def _listener(directory: str) -> Listener:
    return Listener(Exchange(Path(directory)))


class Listener:
    """The hooks of one process, and the batch that passes them at the moment."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._number = -1
        self._capture: Capture | Inside | None = None
        self._forward_batch: Any = None

    def start(self, original: Callable[..., None], scheduler: Any, *args: Any, **kwargs: Any) -> None:
        """Build the scheduler, and tell the worker how it came out, or why it did not."""
        from sglang.srt.model_executor.model_runner import ModelRunner

        from .facts import examine

        try:
            original(scheduler, *args, **kwargs)
            for method in (ModelRunner.forward, ModelRunner.sample):
                if not hasattr(method, "__wrapped__"):
                    raise EngineError(f"this SGLang let no plugin hook be put on its {method.__qualname__}")
            _check_head(scheduler.tp_worker.model_runner.model)
            if _is_first_rank():
                self._exchange.describe(examine(scheduler))
        except Exception as error:
            self._exchange.fail(error)
            raise

    def forward(
        self, original: Callable[..., Any], runner: Any, forward_batch: Any, *args: Any, **kwargs: Any
    ) -> Any:
        """Remember what a pass is of: a CUDA graph hands the logits processor a batch without its requests."""
        self._forward_batch = forward_batch
        try:
            with self._looking(runner, forward_batch):
                return original(runner, forward_batch, *args, **kwargs)
        finally:
            self._forward_batch = None

    def _looking(self, runner: Any, forward_batch: Any) -> AbstractContextManager[object]:
        """Around a pass of a batch whose inside is asked for, what shows it."""
        current = self._current(forward_batch.rids or [])
        if current is None or not isinstance(current[0], Inside):
            return nullcontext()
        return current[0].listening(runner.model)

    def sample(self, original: Callable[..., Tensor], runner: Any, output: Any, forward_batch: Any) -> Tensor:
        """The next token of every request [S]; in place of SGLang's sampler where the requests are ours."""
        try:
            current = self._current(forward_batch.rids)
            if current is None:
                self._compare_weights(runner.model)
                return original(runner, output, forward_batch)
            capture, row_S = current
            lengths = forward_batch.seq_lens if forward_batch.seq_lens_cpu is None else forward_batch.seq_lens_cpu
            size = len(row_S)  # what is longer is padded
            return capture.sample(row_S, lengths[:size].cpu().numpy(), output.next_token_logits[:size])
        except Exception as error:
            self._exchange.fail(error)
            raise

    def _compare_weights(self, model: Any) -> None:
        """Hold what is loaded against the checkpoint, where the worker asks."""
        from ..common.loaded_weights import compare_loaded, readers
        from ..common.stored_weights import of_adapters, stored_weights

        if (asked := self._exchange.asked_for_weights()) is not None:
            stored = stored_weights(*asked)
            learned = {name for name, _ in model.named_parameters()}
            unread = dict.fromkeys(of_adapters(stored), "SGLang keeps adapters in a pool that is not looked into")
            self._exchange.put_weights(compare_loaded(stored, readers(model), learned, unread))

    def prefill(self, module: Any, args: tuple[Any, ...], output: Any) -> None:
        """Score the prompts of a forward pass, where that is what they are for."""
        forward_batch = self._forward_batch
        if forward_batch is None or not forward_batch.forward_mode.is_extend():
            return
        try:
            current = self._current(forward_batch.rids)
            if current is None or not current[0].prefills:
                return
            capture, row_S = current
            from sglang.srt.layers.logits_processor import LogitsMetadata
            from sglang.srt.model_executor.forward_batch_info import ForwardMode

            _, hidden_PH, head, *_ = args
            # To the logits processor, every row of a decoding step is the last state of a sequence of its own.
            each_row = LogitsMetadata(forward_mode=ForwardMode.DECODE)
            capture.prefill(
                row_S,
                np.asarray(forward_batch.extend_prefix_lens_cpu),
                np.asarray(forward_batch.extend_seq_lens_cpu),
                lambda index_N: module.forward(None, hidden_PH[index_N], head, each_row).next_token_logits,
            )
        except Exception as error:
            self._exchange.fail(error)
            raise

    def _current(self, request_ids: list[str]) -> tuple[Capture | Inside, np.ndarray] | None:
        """The current batch, and every request's row in it [S], -1 for what is left of an earlier batch.

        None where there is no request, or one that is not ours.
        """
        places = [place for place in map(parse_request_id, request_ids) if place is not None]
        if not places or len(places) < len(request_ids):
            return None
        number = max(number for number, _ in places)
        if self._capture is None or number > self._number:
            batch = self._exchange.read(number)
            self._number, self._capture = number, self._capture_of(batch)
        return self._capture, np.array([row if number == self._number else -1 for number, row in places])

    def _capture_of(self, batch: Batch) -> Capture | Inside:
        first = _is_first_rank()
        if batch.task.kind == "internals":
            return Inside(batch, writes=first)
        return Capture(batch, (lambda record: self._exchange.put(batch.number, record)) if first else None)


def _check_head(model: Any) -> None:
    """Some models of SGLang's have a head of their own even where the checkpoint has none, and leave it random."""
    config = getattr(model, "config", None)
    if not getattr(config, "tie_word_embeddings", False) or not hasattr(model, "get_embed_and_head"):
        return
    embedding_VH, head_VH = model.get_embed_and_head()
    if embedding_VH.shape == head_VH.shape and not torch.equal(embedding_VH, head_VH):
        raise ModelError(
            f"SGLang's {type(model).__name__} ignores tie_word_embeddings: the checkpoint has no head of its own, "
            "so the model's would be random",
            hint="save the checkpoint with its head: tie_word_embeddings=false and an lm_head.weight",
        )


def _is_first_rank() -> bool:
    from sglang.srt.runtime_context import get_parallel

    return get_parallel().tp_rank == 0
