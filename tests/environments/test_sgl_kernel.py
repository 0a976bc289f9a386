"""The stand-in for SGLang's CPU kernels: its hash against the published algorithm, byte by byte."""

from __future__ import annotations

import importlib.util
import struct
from pathlib import Path
from types import ModuleType

import pytest

import mismatchscope

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def kernel() -> ModuleType:
    """Loaded from its file under the name that it has in an environment of SGLang."""
    path = Path(mismatchscope.__file__).with_name("environments") / "sgl_kernel.py"
    spec = importlib.util.spec_from_file_location("sgl_kernel", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def murmur3_x86_32(data: bytes, seed: int = 0) -> int:
    """The reference algorithm for whole blocks of four bytes, in Python's unbounded integers."""

    def rotate(value: int, bits: int) -> int:
        return int(f"{value:032b}"[bits:] + f"{value:032b}"[:bits], 2)

    state = seed
    for (block,) in struct.iter_unpack("<I", data):
        key = rotate(block * 0xCC9E2D51 % 2**32, 15) * 0x1B873593 % 2**32
        state = (rotate(state ^ key, 13) * 5 + 0xE6546B64) % 2**32
    state ^= len(data)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
        state = (state ^ (state >> shift)) * factor % 2**32
    return state


def test_the_reference_agrees_with_a_published_value() -> None:
    assert murmur3_x86_32(b"aaaa", seed=0x9747B28C) == 0x5A97808A


@pytest.mark.parametrize("seed", [0, 42, 2**31, 2**63 - 1, -1])
def test_the_hash_is_murmur3_of_seed_position_and_column(kernel: ModuleType, seed: int) -> None:
    positions = [0, 1, 2**31 - 1]
    columns = [0, 1, 1000, 262143]
    hashed = torch.ops.sgl_kernel.murmur_hash32_cpu(
        torch.tensor([seed] * len(positions)), torch.tensor(positions, dtype=torch.int32), torch.tensor(columns)
    )
    assert hashed.dtype == torch.uint32
    expected = [
        [murmur3_x86_32(struct.pack("<qII", seed, position, column)) for column in columns]
        for position in positions
    ]
    assert hashed.to(torch.int64).tolist() == expected


def test_what_it_does_not_have_says_so(kernel: ModuleType) -> None:
    with pytest.raises(NotImplementedError, match="verify_tree_greedy_cpu needs SGLang's compiled CPU kernels"):
        kernel.verify_tree_greedy_cpu(1, last=2)
