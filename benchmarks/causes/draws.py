"""Responses that a policy draws token by token, with the distribution that every token was drawn from.

Shapes: B rows of a batch, S sequences, N response tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from architectures import EOS, PAD
from policy import Policy, Rows, Run

Tensor = torch.Tensor
BATCH = 256
NEW_TOKENS = 80


@dataclass(frozen=True)
class Sampler:
    """What the sampler does to log-probs before it draws. The defaults do nothing."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0


@dataclass(frozen=True)
class Draws:
    """Responses and, for every token, the log-probs that it was drawn by: float32 [N, V], after the sampler."""

    rows: Rows
    logp_NV: np.ndarray
    prompt_S: np.ndarray

    @property
    def offsets(self) -> np.ndarray:
        return np.concatenate([[0], np.cumsum(self.rows.lengths)])

    @property
    def token_N(self) -> np.ndarray:
        """The drawn ids."""
        rows = zip(self.rows.ids_S, self.rows.start_S, strict=True)
        return np.concatenate([np.array(ids[start:]) for ids, start in rows])

    def tokens_of(self, sequences: Iterable[int]) -> np.ndarray:
        """Places of the tokens of these sequences, one sequence after the other."""
        offsets = self.offsets
        return np.concatenate([np.arange(offsets[s], offsets[s + 1]) for s in sequences])

    def select(self, sequences: Sequence[int]) -> Draws:
        logp_NV = self.logp_NV[self.tokens_of(sequences)]
        return Draws(self.rows.select(sequences), logp_NV, self.prompt_S[list(sequences)])

    def save(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        lengths = np.array([len(ids) for ids in self.rows.ids_S])
        np.savez(
            file,
            ids=np.concatenate([np.array(ids) for ids in self.rows.ids_S]),
            lengths=lengths,
            start=np.array(self.rows.start_S),
            logp=self.logp_NV,
            prompt=self.prompt_S,
        )

    @classmethod
    def load(cls, file: Path) -> Draws:
        stored = np.load(file)
        blocks = np.split(stored["ids"], np.cumsum(stored["lengths"])[:-1])
        ids = tuple(tuple(int(token) for token in block) for block in blocks)
        rows = Rows(ids, tuple(int(start) for start in stored["start"]))
        return cls(rows, stored["logp"], stored["prompt"])


def draw(
    policy: Policy,
    prompts: Sequence[Sequence[int]],
    samplers: Sequence[Sampler],
    run: Run,
    uniform_ST: np.ndarray,
    prompt_S: Sequence[int],
) -> Draws:
    """One response to each prompt, by decoding with a cache of keys and values; each has its sampler, and uniform
    numbers of its own, so that it does not matter what else is drawn with it."""
    responses: list[list[int]] = []
    blocks: list[Tensor] = []
    with torch.inference_mode(), policy.running(run):
        for first in range(0, len(prompts), BATCH):
            chunk = slice(first, first + BATCH)
            tokens, logp = _decode(policy, prompts[chunk], samplers[chunk], run, uniform_ST[chunk])
            responses += tokens
            blocks += logp
    ids = tuple((*prompt, *response) for prompt, response in zip(prompts, responses, strict=True))
    rows = Rows(ids, tuple(map(len, prompts)))
    return Draws(rows, torch.cat(blocks).numpy(), np.array(prompt_S))


def uniforms(sequences: int, seed: int) -> np.ndarray:
    """[S, T] numbers in [0, 1) to draw responses by."""
    return np.random.default_rng([seed, 1]).random((sequences, NEW_TOKENS))


def _decode(
    policy: Policy,
    prompts: Sequence[Sequence[int]],
    samplers: Sequence[Sampler],
    run: Run,
    uniform_BT: np.ndarray,
) -> tuple[list[list[int]], list[Tensor]]:
    from transformers import DynamicCache

    count, longest = len(prompts), max(map(len, prompts))
    ids_BT = torch.full((count, longest), PAD)
    for b, prompt in enumerate(prompts):
        ids_BT[b, longest - len(prompt) :] = torch.tensor(prompt)
    padding_B = torch.tensor([longest - len(prompt) for prompt in prompts])
    seen_BV = torch.zeros(count, policy.head_weight.shape[0], dtype=torch.bool)
    for b, prompt in enumerate(prompts):
        seen_BV[b, torch.tensor(prompt)] = True
    settings = [torch.tensor([getattr(s, name) for s in samplers]) for name in Sampler.__dataclass_fields__]
    active_B = torch.arange(count)
    tokens: list[list[int]] = [[] for _ in prompts]
    logp: list[list[Tensor]] = [[] for _ in prompts]
    cache = DynamicCache()
    position_BT = (torch.arange(longest)[None] - padding_B[:, None]).clamp(min=0)
    step_BT = ids_BT
    for step in range(NEW_TOKENS):
        policy.valid_BK = torch.arange(longest + step)[None, :] >= padding_B[active_B][:, None]
        hidden = policy.body(input_ids=step_BT, position_ids=position_BT, past_key_values=cache, use_cache=True)
        raw_BV = policy.log_softmax(hidden.last_hidden_state[:, -1], run)
        drawn_by_BV = processed(raw_BV, seen_BV[active_B], [value[active_B] for value in settings])
        below_BV = drawn_by_BV.double().exp().cumsum(-1)
        wanted_B1 = torch.from_numpy(uniform_BT[active_B.numpy(), step])[:, None] * below_BV[:, -1:]
        token_B = torch.searchsorted(below_BV, wanted_B1, right=True)[:, 0]
        for b, token, row in zip(active_B.tolist(), token_B.tolist(), drawn_by_BV, strict=True):
            tokens[b].append(token)
            logp[b].append(row)
        seen_BV[active_B, token_B] = True
        going = (token_B != EOS).nonzero()[:, 0]
        if not len(going):
            break
        if len(going) < len(active_B):
            cache.batch_select_indices(going)
        active_B, step_BT = active_B[going], token_B[going][:, None]
        position_BT = (longest + step - padding_B[active_B])[:, None]
    policy.valid_BK = None
    return tokens, [torch.stack(rows) for rows in logp]


def processed(logp_BV: Tensor, seen_BV: Tensor, settings: Sequence[Tensor]) -> Tensor:
    """Log-probs after a repetition penalty, temperature, top-k, top-p and min-p, in the order of transformers."""
    temperature, top_p, top_k, min_p, penalty = (value[:, None] for value in settings)
    changed = torch.where(seen_BV, logp_BV * penalty, logp_BV) / temperature
    if (top_k > 0).any() or (top_p < 1).any() or (min_p > 0).any():
        changed = changed.log_softmax(-1)
        sorted_BV, order_BV = changed.sort(-1, descending=True)
        rank_BV = torch.arange(changed.shape[1])[None]
        before_BV = sorted_BV.exp().cumsum(-1) - sorted_BV.exp()
        out = ((top_k > 0) & (rank_BV >= top_k)) | ((top_p < 1) & (before_BV >= top_p))
        out |= sorted_BV < sorted_BV[:, :1] + min_p.clamp(min=1e-30).log()
        changed = changed.masked_fill(torch.zeros_like(out).scatter(-1, order_BV, out), -torch.inf)
    if not ((temperature != 1) | (penalty != 1) | (top_k > 0) | (top_p < 1) | (min_p > 0)).any():
        return logp_BV
    return changed.log_softmax(-1)
