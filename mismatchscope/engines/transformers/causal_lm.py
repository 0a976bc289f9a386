"""A causal language model in two halves, the backbone and the head, in the precision and attention asked for.

Halving it is what lets log-probs be computed by chunks of positions, so that [T, V] never exists whole.

Shapes: B rows, T columns, N states, H hidden, V vocabulary.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ...errors import ModelError
from ..common.json_values import dtype_names
from .loading import attention_name, load_network
from .routers import find_routers

if TYPE_CHECKING:
    from transformers import Cache

    from ..common.adapter import Adapter
    from .options import TransformersOptions

_ADAPTER_PART = ".default."
"""In the names of an adapter's parameters: what peft calls an adapter that is given no name."""

_CACHE_ARGUMENTS = ("cache", "past_key_values", "cache_params")


class CausalLM:
    """`hidden` runs the backbone, `logits` the head; both as the options say."""

    def __init__(self, path: Path, adapter: Adapter | None, options: TransformersOptions) -> None:
        self.network = load_network(path, adapter, options)
        self.network.eval()
        self._backbone = self.network.base_model
        self._head = self.network.get_output_embeddings()
        self.device = self.network.get_input_embeddings().weight.device
        self.head_device = self._head.weight.device
        self.vocabulary_size = self._head.weight.shape[0]
        self.parameters = self.network.num_parameters()
        self.train_mode = options.train_mode
        self._fp8_cache = options.kv_cache_dtype == "fp8"
        self._asked_attention = options.attn
        self.autocast = options.dtype == "autocast"
        self._float32_router = options.router == "float32"
        self._float32_head = options.lm_head == "float32"
        if self._float32_head:
            if hasattr(self._head, "base_layer"):
                raise ModelError(
                    "the adapter changes the LM head, which lm_head=float32 runs without it", hint="lm_head=model"
                )
            self._head_weight_VH = self._head.weight.detach().float()
        if options.gradient_checkpointing:
            self.network.gradient_checkpointing_enable()
        # The cache's name has changed between versions of transformers, and some models take any other in silence.
        accepted = inspect.signature(type(self._backbone).forward).parameters
        self._cache_argument = next((name for name in _CACHE_ARGUMENTS if name in accepted), "past_key_values")
        self.has_attention = _keeps_keys_and_values(self.new_cache())
        if self._fp8_cache and not self.has_attention:
            raise ModelError(
                f"{type(self.network).__name__} keeps no keys and values to round", hint="kv_cache_dtype=auto"
            )
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
    def adapter_dtype(self) -> str | None:
        """The names of the dtypes that the adapter's weights have; None without an adapter."""
        names = self.network.named_parameters()
        return dtype_names(parameter.dtype for name, parameter in names if _ADAPTER_PART in f"{name}.")

    @property
    def routers(self) -> list[nn.Module]:
        return find_routers(self.network)

    @property
    def router_dtype(self) -> str | None:
        """The dtype in which tokens are sent to experts; None without a router that is known."""
        if self._float32_router or not self.routers:
            return "float32" if self.routers else None
        return "bfloat16" if self.autocast else dtype_names(router.weight.dtype for router in self.routers)

    @property
    def head_dtype(self) -> torch.dtype:
        if self._float32_head:
            return torch.float32
        return torch.bfloat16 if self.autocast else self._head.weight.dtype

    @property
    def dtype(self) -> str | None:
        """The names of the parameters' dtypes, without those of routers that are told to differ."""
        if self.autocast:
            return "autocast"
        apart = self.routers if self._float32_router else []
        routing = {id(parameter) for router in apart for parameter in router.parameters()}
        return dtype_names(each.dtype for each in self.network.parameters() if id(each) not in routing)

    def new_cache(self) -> Cache:
        from transformers import DynamicCache

        from .fp8 import Fp8Cache

        return (Fp8Cache if self._fp8_cache else DynamicCache)(config=self.network.config)

    @property
    def attention(self) -> str | None:
        """The attention that the layers run, see `attention_name`; None where there is none to run."""
        if not self.has_attention:
            return None
        running = self.network.config.get_text_config(decoder=True)._attn_implementation
        return attention_name(self._asked_attention, running)

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
        if cache is None and self._fp8_cache:
            cache = self.new_cache()  # attention reads what it keeps, in a prefill too
        with self._autocast():
            return self._backbone(
                input_ids=input_ids_BT,
                attention_mask=mask_BT,
                position_ids=position_ids_BT,
                use_cache=cache is not None,
                **{self._cache_argument: cache},
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
            if not self.autocast:  # Mamba keeps its residuals in float32, whatever the weights are
                hidden_NH = hidden_NH.to(self._head.weight.dtype)
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

    def close(self) -> None:
        """End what was started for it, which is nothing where the model is in one process."""

    def _autocast(self) -> Any:
        return torch.autocast(self.device.type, torch.bfloat16) if self.autocast else nullcontext()

    @torch.inference_mode()
    def _check_halves(self) -> None:
        """Compare the two halves with the whole forward: a model may do something of its own between them."""
        input_ids, position_ids = self._example(copies=1)
        kept = {self._cache_argument: self.new_cache()} if self._fp8_cache else {}
        with self._autocast():
            whole = self.network(input_ids=input_ids, position_ids=position_ids, **kept).logits[0]
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


def _keeps_keys_and_values(cache: Cache) -> bool:
    """Whether any layer does; a model of recurrent layers alone, such as Mamba, has none that does."""
    from transformers.cache_utils import CacheLayerMixin

    layers = cache.layers  # none where they are made when they are first used, which those of attention are
    return not layers or any(isinstance(layer, CacheLayerMixin) for layer in layers)


def _roughly_equal(left: Tensor, right: Tensor) -> bool:
    """Equal but for rounding, also that of bfloat16 kernels of different shapes."""
    left, right = left.float(), right.to(left.device).float()
    return torch.allclose(left, right, rtol=0.05, atol=0.05 * float(right.std()))
