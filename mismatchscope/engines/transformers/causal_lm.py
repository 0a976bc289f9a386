"""A causal language model in two halves, the backbone and the head, in the precision and attention asked for.

Halving it is what lets log-probs be computed by chunks of positions, so that [T, V] never exists whole.

Shapes: B rows, T columns, N states, H hidden, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...errors import ModelError, SpecError

if TYPE_CHECKING:
    from transformers import Cache, PreTrainedModel

    from .options import TransformersOptions

_WEIGHT_DTYPES = {
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float32": torch.float32,
    "autocast": torch.float32,  # the master weights
}


class CausalLM:
    """`hidden` runs the backbone, `logits` the head; both as the options say."""

    def __init__(self, path: Path, options: TransformersOptions) -> None:
        self.network = _load(path, options)
        self.network.eval()
        self._backbone = self.network.base_model
        self._head = self.network.get_output_embeddings()
        self.device = self.network.get_input_embeddings().weight.device
        self.head_device = self._head.weight.device
        self.vocabulary_size = self._head.weight.shape[0]
        self.parameters = self.network.num_parameters()
        self.train_mode = options.train_mode
        self.autocast = options.dtype == "autocast"
        self._float32_head = options.lm_head == "float32"
        if self._float32_head:
            self._head_weight_VH = self._head.weight.detach().float()
        if options.gradient_checkpointing:
            self.network.gradient_checkpointing_enable()
        self._packing_checked = False
        self._check_halves()
        if options.padding == "packed":
            self.check_packing()
        if options.compile:
            self._backbone.compile(dynamic=True)

    @property
    def compiled(self) -> bool:
        return self._backbone._compiled_call_impl is not None

    @property
    def gradient_checkpointing(self) -> bool:
        return any(getattr(module, "gradient_checkpointing", False) for module in self.network.modules())

    @property
    def head_dtype(self) -> torch.dtype:
        if self._float32_head:
            return torch.float32
        return torch.bfloat16 if self.autocast else self._head.weight.dtype

    def new_cache(self) -> Cache:
        from transformers import DynamicCache

        return DynamicCache(config=self.network.config)

    @contextmanager
    def training(self) -> Iterator[None]:
        """Train mode for a moment, where the options ask for it."""
        self.network.train(self.train_mode)
        try:
            yield
        finally:
            self.network.eval()

    def hidden(
        self, input_ids_BT: Tensor, mask_BT: Tensor | None, position_ids_BT: Tensor, cache: Cache | None = None
    ) -> Tensor:
        """Last hidden states [B, T, H]; with a cache, those of the new columns."""
        with self._autocast():
            return self._backbone(
                input_ids=input_ids_BT,
                attention_mask=mask_BT,
                position_ids=position_ids_BT,
                past_key_values=cache,
                use_cache=cache is not None,
            ).last_hidden_state

    def logits(self, hidden_NH: Tensor) -> Tensor:
        """Logits [N, V] as the model's own forward computes them, in the head's dtype."""
        hidden_NH = hidden_NH.to(self.head_device)
        if self._float32_head:
            bias = getattr(self._head, "bias", None)
            logits_NV = torch.nn.functional.linear(
                hidden_NH.float(), self._head_weight_VH, None if bias is None else bias.float()
            )
        else:
            with self._autocast():
                logits_NV = self._head(hidden_NH)
        config = self.network.config
        if scale := getattr(config, "logit_scale", None):  # Cohere
            logits_NV = logits_NV * scale
        if divisor := getattr(config, "logits_scaling", None):  # Granite
            logits_NV = logits_NV / divisor
        if cap := getattr(config, "final_logit_softcapping", None):  # Gemma
            logits_NV = torch.tanh(logits_NV / cap) * cap
        return logits_NV

    def _autocast(self) -> Any:
        return torch.autocast(self.device.type, torch.bfloat16) if self.autocast else nullcontext()

    @torch.inference_mode()
    def _check_halves(self) -> None:
        """Compare the two halves with the whole forward: a model may do something of its own between them."""
        input_ids, position_ids = self._example(copies=1)
        with self._autocast():
            whole = self.network(input_ids=input_ids, position_ids=position_ids).logits[0]
        halves = self.logits(self.hidden(input_ids, None, position_ids)[0])
        if not _roughly_equal(halves, whole):
            raise ModelError(
                f"{type(self.network).__name__} does more between its hidden states and its logits than the "
                "transformers engine knows, so its log-probs cannot be computed by chunks",
                hint="score this model with another engine, for example vllm",
            )

    @torch.inference_mode()
    def check_packing(self) -> None:
        """Run one sequence twice in a row: unless the model keeps them apart, the second sees the first.

        Raises `ModelError` for a model that does not; one that does is checked once.
        """
        if self._packing_checked:
            return
        input_ids, position_ids = self._example(copies=2)
        first, second = self.hidden(input_ids, None, position_ids)[0].chunk(2)
        if not _roughly_equal(first, second):
            raise ModelError(
                f"{type(self.network).__name__} does not tell packed sequences apart by their positions",
                hint="transformers:padding=right",
            )
        self._packing_checked = True

    def _example(self, copies: int) -> tuple[Tensor, Tensor]:
        """Some tokens and their positions [1, T], repeated in one row."""
        token_ids = torch.arange(min(8, self.vocabulary_size), device=self.device)
        return token_ids.repeat(copies)[None], torch.arange(len(token_ids), device=self.device).repeat(copies)[None]


def _roughly_equal(left: Tensor, right: Tensor) -> bool:
    """Equal but for rounding, also that of bfloat16 kernels of different shapes."""
    left, right = left.float(), right.to(left.device).float()
    return torch.allclose(left, right, rtol=0.05, atol=0.05 * float(right.std()))


def _load(path: Path, options: TransformersOptions) -> PreTrainedModel:
    import transformers
    from safetensors import SafetensorError

    transformers.utils.logging.disable_progress_bar()
    device = _device(options.device)
    try:
        network, report = transformers.AutoModelForCausalLM.from_pretrained(
            path,
            dtype=_WEIGHT_DTYPES[options.dtype],
            attn_implementation={"flex": "flex_attention"}.get(options.attn, options.attn),
            device_map=options.device_map or None,
            trust_remote_code=options.trust_remote_code,
            use_safetensors=True,  # a pickle is never loaded
            output_loading_info=True,
        )
    except torch.OutOfMemoryError:
        raise
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        raise ModelError(
            f"transformers cannot load the model in {path}: {type(error).__name__}: {error}",
            hint="check that config.json and the safetensors files are complete and belong together",
        ) from error
    missing = [str(key) for kind in ("missing_keys", "mismatched_keys") for key in sorted(report[kind])]
    if missing:
        raise ModelError(
            f"the checkpoint in {path} lacks {len(missing)} of the model's tensors, {missing[0]} among them; "
            "they would be random",
            hint="download the checkpoint again, or export it with save_pretrained",
        )
    if network.get_output_embeddings() is None:
        raise ModelError(f"{type(network).__name__} in {path} has no language-model head")
    if not options.device_map:
        network.to(device)
    elif any(parameter.is_meta for parameter in network.parameters()):
        raise ModelError(
            f"device_map={options.device_map} leaves part of the model in {path} outside the devices' memory",
            hint="use a machine with more device memory",
        )
    return network


def _device(name: str) -> torch.device:
    """The device an option names; `auto` is the accelerator where there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise SpecError(f"transformers: device={name} is no device of torch.", hint="device=cpu") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise SpecError(
            f"transformers: device={name}, but torch sees {torch.cuda.device_count()} CUDA devices.",
            hint="device=cpu",
        )
    return device
