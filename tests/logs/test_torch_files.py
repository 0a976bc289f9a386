"""What torch.save wrote is read as torch reads it, without torch, and never more of it than the file has."""

from __future__ import annotations

import contextlib
import io
import pickle
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mismatchscope.logs.restricted_pickle import RefusedFileError
from mismatchscope.logs.torch_files import Tensor, is_complete, read_torch_bytes, read_torch_file

TENSORS = {
    "float32": torch.linspace(-3, 3, 24).reshape(2, 3, 4),
    "float64": torch.linspace(-3, 3, 5, dtype=torch.float64),
    "float16": torch.tensor([1.5, -2.0], dtype=torch.float16),
    "bfloat16": torch.tensor([1.0, -0.333, 1e-20, float("inf"), float("nan")], dtype=torch.bfloat16),
    "int64": torch.tensor([2**40, -1]),
    "int32": torch.tensor([[1], [2]], dtype=torch.int32),
    "int16": torch.tensor([1], dtype=torch.int16),
    "int8": torch.tensor([-1], dtype=torch.int8),
    "uint8": torch.tensor([255], dtype=torch.uint8),
    "uint16": torch.tensor([65535], dtype=torch.uint16),
    "bool": torch.tensor([True, False]),
    "empty": torch.empty(0),
    "scalar": torch.tensor(2.5),
    "transposed": torch.arange(12).reshape(3, 4).t()[1:],
    "a view from the middle": torch.arange(100)[40:60:3],
    "expanded": torch.ones(1).expand(7),
    "with a gradient": torch.ones(2, requires_grad=True),
}


def saved(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("name", TENSORS)
def test_tensors_are_what_torch_reads(name: str) -> None:
    expected = TENSORS[name].detach()
    found = read_torch_bytes(saved(TENSORS[name])).numpy()
    np.testing.assert_array_equal(
        found, (expected.float() if expected.dtype == torch.bfloat16 else expected).numpy()
    )
    assert found.shape == expected.shape


@pytest.mark.parametrize(
    "array",
    [
        np.arange(8, dtype=np.int32).reshape(2, 2, 2),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.arange(3, dtype=">i2"),
        np.array([True, False]),
        np.empty((0, 4), np.int16),
    ],
)
def test_numpy_arrays_are_read(array: np.ndarray) -> None:
    np.testing.assert_array_equal(read_torch_bytes(saved({"experts": array}))["experts"].numpy(), array)


def test_everything_else_is_what_it_was() -> None:
    value = {"a": [1, -1, 300, 70_000, 2**40, 0.5, None, True], "b": (1, "text"), 3: {}, "reward": np.float64(1.5)}
    assert read_torch_bytes(saved(value)) == value
    assert read_torch_bytes(saved({"shape": torch.Size([2, 3])})) == {"shape": (2, 3)}


def test_a_file_is_read_without_torch(tmp_path: Path) -> None:
    (tmp_path / "x.pt").write_bytes(saved({"values": torch.arange(4)}))
    code = (
        "import sys; from pathlib import Path; from mismatchscope.logs.torch_files import read_torch_file;"
        f"print(read_torch_file(Path({str(tmp_path / 'x.pt')!r}))['values'].numpy().sum(), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["6", "False"]


def rewritten(data: bytes, change: Callable[[dict[str, bytes]], None], **options: Any) -> bytes:
    """An archive whose entries were changed."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    change(entries)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", **options) as archive:
        for name, entry in entries.items():
            archive.writestr(name, entry)
    return buffer.getvalue()


def pickle_entry(change: Callable[[bytes], bytes]) -> Callable[[dict[str, bytes]], None]:
    def change_entry(entries: dict[str, bytes]) -> None:
        name = next(name for name in entries if name.endswith("data.pkl"))
        entries[name] = change(entries[name])

    return change_entry


SAVED = saved({"values": torch.arange(1000, dtype=torch.float32)})
# How the pickle says 1000 values, offset 0, shape (1000,), stride (1,).
SHAPE = b"K\x00M\xe8\x03\x85q\x08K\x01\x85"


def test_the_pickle_is_as_the_attacks_expect() -> None:
    with zipfile.ZipFile(io.BytesIO(SAVED)) as archive:
        data = archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))
    assert data.count(SHAPE) == 1
    assert data.count(b"M\xe8\x03tq") == 1


def replaced(old: bytes, new: bytes) -> bytes:
    return rewritten(SAVED, pickle_entry(lambda data: data.replace(old, new)))


def without_values(entries: dict[str, bytes]) -> None:
    del entries[next(name for name in entries if name.endswith("data/0"))]


def big_endian(entries: dict[str, bytes]) -> None:
    entries[next(name for name in entries if name.endswith("byteorder"))] = b"big"


ATTACKS = {
    "compressed entries": (rewritten(SAVED, lambda _: None, compression=zipfile.ZIP_DEFLATED), "compressed"),
    "a shape of 2**31": (replaced(SHAPE, SHAPE.replace(b"M\xe8\x03", b"J\xff\xff\xff\x7f")), "larger than what"),
    "2**31 equal values": (
        replaced(SHAPE, b"K\x00J\xff\xff\xff\x7f\x85q\x08K\x00\x85"),
        "larger than what is stored",
    ),
    "a negative stride": (replaced(SHAPE, SHAPE[:-3] + b"J\xff\xff\xff\xff\x85"), "shape that is none"),
    "a negative offset": (replaced(SHAPE, b"J\xff\xff\xff\xff" + SHAPE[2:]), "shape that is none"),
    "an offset beyond the end": (replaced(SHAPE, b"K\x01" + SHAPE[2:]), "larger than what is stored"),
    "a stride beyond the end": (replaced(SHAPE, SHAPE[:-2] + b"\x02\x85"), "larger than what is stored"),
    "a storage of 2**31": (replaced(b"M\xe8\x03tq", b"J\xff\xff\xff\x7ftq"), "declared with 2,147,483,647"),
    "values that are missing": (rewritten(SAVED, without_values), "values of one of its tensors are missing"),
    "big-endian bytes": (rewritten(SAVED, big_endian), "big-endian"),
    "no pickle": (rewritten(SAVED, pickle_entry(lambda data: b"hello")), "no pickle"),
    "half a pickle": (
        rewritten(SAVED, pickle_entry(lambda data: data[: len(data) // 2])),
        "ends before|without an end",
    ),
    "another zip archive": (rewritten(SAVED, lambda entries: entries.clear()), "none of torch.save"),
    "half a file": (SAVED[: len(SAVED) // 2], "the end of it is missing"),
    "nothing": (b"", "the end of it is missing"),
    "an older torch": (pickle.dumps(0x1950A86A20F9469CFC6C, 2) + SAVED, "the end of it is missing|entries"),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_attacks_are_refused(name: str) -> None:
    data, why = ATTACKS[name]
    if name == "an older torch":  # a pickle, and no archive
        data = data[:40]
    with pytest.raises(RefusedFileError, match=why):
        read_torch_bytes(data)


def test_a_directory_that_points_outside_is_refused() -> None:
    at = SAVED.rfind(b"PK\x01\x02")
    for offset in (2**31, len(SAVED) - 10):
        data = bytearray(SAVED)
        data[at + 42 : at + 46] = struct.pack("<I", offset)
        with pytest.raises(RefusedFileError):
            read_torch_bytes(bytes(data))


def test_an_entry_beyond_all_numbers_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the 64-bit extension of a directory can say."""
    for offset in (2**63, -1):
        entry = zipfile.ZipInfo("archive/data.pkl")
        entry.header_offset = offset
        monkeypatch.setattr(zipfile.ZipFile, "infolist", lambda self, entry=entry: [entry])
        with pytest.raises(RefusedFileError):
            read_torch_bytes(SAVED)


def test_bits_that_flip_are_read_or_refused() -> None:
    generator = np.random.default_rng(0)
    for _ in range(400):
        data = bytearray(SAVED)
        data[generator.integers(len(data))] ^= 1 << generator.integers(8)
        with contextlib.suppress(RefusedFileError):
            read_torch_bytes(bytes(data))


def test_any_other_class_is_refused_by_name() -> None:
    with pytest.raises(RefusedFileError, match=r"it names fractions\.Fraction, which no log needs"):
        read_torch_bytes(saved({"x": __import__("fractions").Fraction(1, 3)}))
    with pytest.raises(RefusedFileError, match=r"it names torch\.nn\.modules\.linear\.Linear"):
        read_torch_bytes(saved(torch.nn.Linear(1, 1)))


def test_large_tensors_are_not_read_until_they_are_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    torch.save({"pixels": torch.zeros(1000, 1000), "few": torch.ones(3)}, path)
    found = read_torch_file(path)
    assert isinstance(found["pixels"], Tensor)
    assert found["pixels"].raw.base is not None
    assert not found["pixels"].raw.flags.writeable
    assert is_complete(path)
    path.write_bytes(path.read_bytes()[:-30])
    assert not is_complete(path)
