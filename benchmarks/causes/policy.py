"""One side of a pair: a network run in a stated way, with whatever is wrong with it.

Shapes: B rows of a batch, H heads, Q queries, K keys, D head size, S sequences, T positions, N response tokens, V
vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from architectures import PAD, LanguageModel
from kernels import NEVER, STORED, Kernel, Precision, Rounding, rounded

Tensor = torch.Tensor
Weights = Mapping[str, Tensor]
BATCH = 16


@dataclass(frozen=True)
class Attention:
    """What is changed of the attention. None and the defaults change nothing."""

    scale: float = 1.0
    soft_cap: float | None = None
    sink: float | None = None
    window: int | None = None
    boundary: int | None = None
    lost: int = 0
    """Queries from `boundary` on do not see the last `lost` keys before it: a chunk that was not joined."""
    stored: Callable[[Tensor], Tensor] | None = None
    """What is done to keys and values when they are stored."""
    frequencies: Callable[[Tensor], Tensor] | None = None
    """What becomes of the inverse frequencies of the rotary embedding."""

    def visible(self, queries: int, keys: int) -> Tensor:
        """[Q, K]: which keys a query sees; queries are the last ones of the keys."""
        query_Q1 = torch.arange(keys - queries, keys)[:, None]
        key_1K = torch.arange(keys)[None, :]
        seen = key_1K <= query_Q1
        if self.window is not None:
            seen = seen & (key_1K > query_Q1 - self.window)
        if self.boundary is not None:
            lost = (key_1K >= self.boundary - self.lost) & (key_1K < self.boundary)
            seen = seen & ~((query_Q1 >= self.boundary) & lost)
        return seen


@dataclass(frozen=True)
class Run:
    """How a side is computed: its stack and what is wrong with it."""

    kernel: Kernel = STORED
    precision: Precision = "bf16"
    head: Precision = "bf16"
    attention: Attention = field(default_factory=Attention)
    weights: Weights = field(default_factory=dict)
    """Parameters that differ from the model's, by name."""
    prefix: tuple[Weights, Sequence[int]] | None = None
    """Weights that computed the keys and values of the first tokens, and of how many tokens of each sequence."""
    route: Callable[[Tensor, int], tuple[Tensor, Tensor]] | None = None
    """From a router's logits and its layer to the logits that choose experts and those that weigh them."""
    dropout: float = 0.0
    epsilon: float | None = None
    padding_logits: float | None = None
    """Logarithm of what ids beyond the vocabulary add to the denominator of the softmax."""

    def but(self, **changes: Any) -> Run:
        return replace(self, **changes)


@dataclass(frozen=True)
class Rows:
    """Contexts and where the response begins in each; `apart_S` tokens at the front have positions of their own."""

    ids_S: tuple[tuple[int, ...], ...]
    start_S: tuple[int, ...]
    apart_S: tuple[int, ...] | None = None

    @property
    def lengths(self) -> np.ndarray:
        """How many response tokens each sequence has."""
        return np.array([len(ids) - start for ids, start in zip(self.ids_S, self.start_S, strict=True)])

    def select(self, sequences: Sequence[int]) -> Rows:
        apart = None if self.apart_S is None else tuple(self.apart_S[s] for s in sequences)
        return Rows(tuple(self.ids_S[s] for s in sequences), tuple(self.start_S[s] for s in sequences), apart)

    def behind(self, prefix_S: Sequence[Sequence[int]], *, apart: bool = False) -> Rows:
        """The same responses with something before each context, whose positions count on unless it is apart."""
        ids = tuple((*prefix, *ids) for prefix, ids in zip(prefix_S, self.ids_S, strict=True))
        start = tuple(len(prefix) + start for prefix, start in zip(prefix_S, self.start_S, strict=True))
        return Rows(ids, start, tuple(map(len, prefix_S)) if apart else None)


class Policy:
    """A network whose rounding, attention, routing and weights can be changed for one run."""

    def __init__(self, model: LanguageModel) -> None:
        self.model, self.network = model, model.network
        self.body = self.network.base_model
        self.head_weight: Tensor = self.network.get_output_embeddings().weight
        self._head_name = "lm_head.weight"
        self.parameters = dict(self.network.named_parameters(remove_duplicate=False))
        embedding = self.network.get_input_embeddings().weight
        self.embedding_name = next(name for name, value in self.parameters.items() if value is embedding)
        self.tied = embedding is self.head_weight
        self.checkpoint_precision: Precision = "bf16"
        self._rounding = Rounding(self.network)
        self._run = Run()
        self.valid_BK: Tensor | None = None
        """Which keys of a batch with padding before its prompts are tokens; set while decoding."""
        self._stored: dict[int, tuple[Tensor, Tensor]] | None = None
        self._recording = False
        self._cut_B1: Tensor | None = None
        self._norms = [m for m in self.network.modules() if hasattr(m, "variance_epsilon") or hasattr(m, "eps")]
        self.epsilon: float = min(getattr(m, "variance_epsilon", None) or m.eps for m in self._norms)
        self._take_over()

    def _take_over(self) -> None:
        from transformers import AttentionInterface

        def attend(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, scaling: float, **_: Any):
            return module.policy._attend(module.layer_idx, query, key, value, scaling), None

        AttentionInterface.register("planted", attend)
        self.network.config._attn_implementation = "planted"
        layer = 0
        for name, module in self.network.named_modules():
            if name.endswith((".self_attn", ".attention")):
                object.__setattr__(module, "policy", self)
            elif name.endswith(".mlp"):
                module.register_forward_hook(self._drop)
            elif type(module).__name__.endswith("TopKRouter"):
                module.register_forward_hook(self._router_hook(layer))
                layer += 1

    def logp(self, rows: Rows, run: Run) -> Tensor:
        """[N, V] float32: log-probs of every id at every response token, sequence after sequence."""
        order = np.argsort([len(ids) for ids in rows.ids_S], kind="stable")
        blocks: dict[int, Tensor] = {}
        with torch.inference_mode(), self.running(run):
            for first in range(0, len(order), BATCH):
                chosen = [int(s) for s in order[first : first + BATCH]]
                hidden = self._hidden(rows.select(chosen), run, chosen)
                for s, states in zip(chosen, hidden, strict=True):
                    blocks[s] = states
            hidden_NH = torch.cat([blocks[s] for s in range(len(rows.ids_S))])
            return self.log_softmax(hidden_NH, run)

    def log_softmax(self, hidden_NH: Tensor, run: Run) -> Tensor:
        """Log-probs from last hidden states; those of a padded vocabulary leave a sum below 1."""
        weight = run.weights.get(self._head_name, self.head_weight)
        logits_NV = rounded(rounded(hidden_NH, run.precision) @ weight.T, run.head)
        total_N1 = logits_NV.logsumexp(-1, keepdim=True)
        if run.padding_logits is not None:
            total_N1 = torch.logaddexp(total_N1, torch.tensor(run.padding_logits))
        return logits_NV - total_N1

    def _hidden(self, rows: Rows, run: Run, chosen: Sequence[int]) -> list[Tensor]:
        longest = max(map(len, rows.ids_S))
        ids_BT = torch.full((len(rows.ids_S), longest), PAD)
        positions_BT = torch.arange(longest).repeat(len(rows.ids_S), 1)
        for b, ids in enumerate(rows.ids_S):
            ids_BT[b, : len(ids)] = torch.tensor(ids)
            if rows.apart_S is not None:
                positions_BT[b, rows.apart_S[b] :] -= rows.apart_S[b]
        if run.prefix is not None:
            weights, cut_S = run.prefix
            self._stored, self._recording = {}, True
            with self._weights(weights):
                self.body(input_ids=ids_BT, position_ids=positions_BT, use_cache=False)
            self._recording = False
            self._cut_B1 = torch.tensor([cut_S[s] for s in chosen])[:, None]
        hidden_BTH = self.body(input_ids=ids_BT, position_ids=positions_BT, use_cache=False).last_hidden_state
        self._stored = None
        spans = zip(hidden_BTH, rows.start_S, rows.ids_S, strict=True)
        return [states[start - 1 : len(ids) - 1] for states, start, ids in spans]

    @contextmanager
    def running(self, run: Run) -> Iterator[None]:
        """The network as a run has it, until the end of the block."""
        self._run, self._rounding.kernel, self._rounding.precision = run, run.kernel, run.precision
        epsilons = [getattr(m, "variance_epsilon", None) or m.eps for m in self._norms]
        rotary = self.body.rotary_emb
        frequencies = rotary.inv_freq
        try:
            if run.epsilon is not None:
                self._set_epsilons([run.epsilon] * len(self._norms))
            if run.attention.frequencies is not None:
                rotary.inv_freq = run.attention.frequencies(frequencies)
            with self._weights(run.weights):
                yield
        finally:
            self._set_epsilons(epsilons)
            rotary.inv_freq = frequencies

    def _set_epsilons(self, values: Sequence[float]) -> None:
        for module, value in zip(self._norms, values, strict=True):
            setattr(module, "variance_epsilon" if hasattr(module, "variance_epsilon") else "eps", value)

    @contextmanager
    def _weights(self, weights: Weights) -> Iterator[None]:
        kept = {name: self.parameters[name].data for name in weights if name != self._head_name}
        try:
            for name in kept:
                self.parameters[name].data = weights[name]
            yield
        finally:
            for name, value in kept.items():
                self.parameters[name].data = value

    def _attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        """Attention as the run has it: [B, H, Q, D] in, [B, Q, H, D] out."""
        run, change = self._run, self._run.attention
        query, key = rounded(query, run.precision), rounded(key, run.precision)
        if self._stored is not None:
            if self._recording:
                self._stored[layer] = key, value
            else:
                stale = (torch.arange(key.shape[2]) < self._cut_B1)[:, None, :, None]
                key = torch.where(stale, self._stored[layer][0], key)
                value = torch.where(stale, self._stored[layer][1], value)
        if change.stored is not None:
            key, value = change.stored(key), change.stored(value)
        shared = query.shape[1] // key.shape[1]
        if shared > 1:
            key, value = key.repeat_interleave(shared, 1), value.repeat_interleave(shared, 1)
        score_BHQK = query @ key.transpose(2, 3) * (scaling * change.scale)
        if change.soft_cap is not None:
            score_BHQK = change.soft_cap * torch.tanh(score_BHQK / change.soft_cap)
        seen = change.visible(query.shape[2], key.shape[2])
        if self.valid_BK is not None:
            seen = seen & self.valid_BK[:, None, None, :]
        score_BHQK = score_BHQK.masked_fill(~seen, NEVER)
        return run.kernel.attend(score_BHQK, value, change.sink, run.precision).transpose(1, 2)

    def _drop(self, module: Any, inputs: Any, output: Any) -> Any:
        if not self._run.dropout:
            return output
        return torch.nn.functional.dropout(output, self._run.dropout, training=True)

    def _router_hook(self, layer: int) -> Callable[..., Any]:
        def hook(module: Any, inputs: Any, output: tuple[Tensor, Tensor, Tensor]) -> Any:
            logits = rounded(output[0], self._run.precision) if self._run.kernel.router else output[0]
            choosing, weighing = self._run.route(logits, layer) if self._run.route else (logits, logits)
            experts = choosing.topk(module.top_k, -1).indices
            weights = weighing.softmax(-1).gather(-1, experts)
            if module.norm_topk_prob:
                weights = weights / weights.sum(-1, keepdim=True)
            return logits, rounded(weights, self._run.precision), experts

        return hook
