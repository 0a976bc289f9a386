"""Stands in for SGLang's compiled CPU kernels, for which no wheel is published. Never imported by mismatchscope.

The SGLang recipe copies this file into the environment that it makes. SGLang imports the names below as soon as it
runs on a CPU; all of them move token tables for speculative decoding or copy key-value pages between slots, which
plain decoding never asks for, so calling one says so. No other operator is registered, by which SGLang sees that
there are no vector kernels and takes every layer's path in plain torch.

The seeded sampler does need its hash: MurmurHash3 (x86, 32 bit, seed 0; Austin Appleby, public domain) of the 16
bytes seed (64 bit), position (32 bit), column (32 bit).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

import torch

_WORD = 0xFFFFFFFF


def _absent(name: str) -> Callable[..., NoReturn]:
    def function(*arguments: object, **options: object) -> NoReturn:
        raise NotImplementedError(f"{name} needs SGLang's compiled CPU kernels, which are not installed here")

    return function


assign_draft_cache_locs_contiguous_cpu = _absent("assign_draft_cache_locs_contiguous_cpu")
assign_extend_cache_locs_cpu = _absent("assign_extend_cache_locs_cpu")
assign_req_to_token_pool_cpu = _absent("assign_req_to_token_pool_cpu")
build_tree_kernel_efficient_cpu = _absent("build_tree_kernel_efficient_cpu")
copy_all_layer_kv_cache_cpu = _absent("copy_all_layer_kv_cache_cpu")
fill_accept_out_cache_loc_cpu = _absent("fill_accept_out_cache_loc_cpu")
fill_bonus_tokens_cpu = _absent("fill_bonus_tokens_cpu")
verify_tree_greedy_cpu = _absent("verify_tree_greedy_cpu")


def murmur_hash32(seed_B: torch.Tensor, position_B: torch.Tensor, column_C: torch.Tensor) -> torch.Tensor:
    """uint32 [B, C]. Computed in int64, whose products wrap around without touching the low 32 bits."""
    seed_B1, position_B1 = seed_B.to(torch.int64)[:, None], position_B.to(torch.int64)[:, None]
    state = torch.zeros_like(seed_B1)
    for block in (seed_B1, seed_B1 >> 32, position_B1, column_C.to(torch.int64)):
        key = _rotate((block & _WORD) * 0xCC9E2D51, 15) * 0x1B873593 & _WORD
        state = (_rotate(state ^ key, 13) * 5 + 0xE6546B64) & _WORD
    state = state ^ 16  # the length in bytes
    state = (state ^ state >> 16) * 0x85EBCA6B & _WORD
    state = (state ^ state >> 13) * 0xC2B2AE35 & _WORD
    return (state ^ state >> 16).to(torch.uint32)


def _rotate(value: torch.Tensor, bits: int) -> torch.Tensor:
    word = value & _WORD
    return (word << bits | word >> (32 - bits)) & _WORD


_library = torch.library.Library("sgl_kernel", "FRAGMENT")
_library.define("murmur_hash32_cpu(Tensor seed, Tensor positions, Tensor col_indices) -> Tensor")
_library.impl("murmur_hash32_cpu", murmur_hash32, "CPU")
