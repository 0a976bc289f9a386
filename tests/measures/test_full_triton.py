"""The kernel against the compiled path. In a process of its own: Triton decides at import whether to interpret."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

CHECK = """
import dataclasses, sys
import numpy as np, torch
from mismatchscope.measures import full, full_triton
torch.manual_seed(0)
device = sys.argv[1]
names = {field.name for field in dataclasses.fields(full.Divergences)} - {"log_ratio", "top1_agree"}

def check(a, b, normalised):
    on_gpu = full_triton.measure(a.to(device), b.to(device), normalised, np.log(1e-4))
    on_cpu = full.divergences(a, b, normalised=normalised)
    for name in names:
        np.testing.assert_allclose(on_gpu[name], getattr(on_cpu, name), rtol=1e-4, atol=1e-6, err_msg=name)
    assert np.array_equal(on_gpu["top1_agree"] == 1, on_cpu.top1_agree)
    assert np.all(np.abs(on_gpu["mass_mu"] - 1) < 1e-5) and np.all(np.abs(on_gpu["mass_pi"] - 1) < 1e-5)

mu = torch.randn(3, 9001) * 3
top_k = mu.clone(); top_k[:, 20:] = -torch.inf
masked = mu.clone(); masked[:, 4000:] = -1e30
steep = mu * 6  # with ratios above exp(40)
near, far = mu + torch.randn(3, 9001) * 1e-2, torch.randn(3, 9001) + 90
pairs = [(mu, near), (mu.bfloat16(), far), (mu, mu.clone())]
pairs += [pair for other in (top_k, masked, steep) for pair in ((other, mu), (mu, other))]
for a, b in pairs:
    check(a, b, False)
check(mu.log_softmax(-1), near.log_softmax(-1), True)
tied = torch.zeros(3, 9001); tied[:, [40, 9000]] = 9.0
check(tied, tied.roll(-40, 1), False)
unnormalised = full_triton.measure(mu.to(device), near.to(device), True, np.log(1e-4))
assert np.all(np.abs(unnormalised["mass_mu"] - 1) > 1e-5)
for bad in (torch.nan, torch.inf):
    broken = mu.clone(); broken[1, 7] = bad
    for sides in ((mu, broken), (broken, mu)):
        result = full_triton.measure(*(side.to(device) for side in sides), False, np.log(1e-4))
        assert np.isnan(result["mass_mu"]).tolist() == [False, True, False]
if device == "cuda":
    ids = torch.tensor([0, 19, 5])
    for kind in (torch.float32, torch.bfloat16, torch.float16, torch.float64):
        a, b = mu.to(kind), near.to(kind)
        on_gpu, on_cpu = full.divergences(a.cuda(), b.cuda(), ids.cuda()), full.divergences(a, b, ids)
        np.testing.assert_allclose(on_gpu.log_ratio, on_cpu.log_ratio, rtol=1e-4, atol=1e-6)
    for sides in ((mu.cuda(), near), (mu, near.cuda())):
        try:
            full.divergences(*sides)
        except ValueError as error:
            assert "same device" in str(error)
        else:
            raise AssertionError
    try:
        full.divergences(mu.cuda(), broken.cuda())
    except ValueError as error:
        assert "row 1 of the reference holds inf at id 7" in str(error)
    else:
        raise AssertionError
"""


@pytest.mark.slow
def test_the_kernel_in_tritons_interpreter():
    pytest.importorskip("triton")
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    subprocess.run([sys.executable, "-W", "ignore", "-c", CHECK, "cpu"], env=environment, check=True)


@pytest.mark.parametrize("element", ["fp32", "bf16"])
def test_the_kernel_compiles_for_a_gpu(element: str) -> None:
    """The interpreter takes what the compiler refuses, such as a variable of two types; none of it needs a GPU."""
    triton = pytest.importorskip("triton")
    from triton.backends.compiler import GPUTarget

    from mismatchscope.measures import full_triton

    types = dict.fromkeys(("mu_ptr", "pi_ptr"), f"*{element}") | {"out_ptr": "*fp64", "log_floor": "fp64"}
    types |= dict.fromkeys(("mu_stride", "pi_stride", "V"), "i32") | {"BLOCK": "constexpr"}
    source = triton.compiler.ASTSource(full_triton._divergences, types, {"BLOCK": full_triton._BLOCK})
    built = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": full_triton._WARPS})
    assert "cubin" in built.asm


@pytest.mark.gpu
def test_the_kernel_on_a_gpu():
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("there is no GPU")
    subprocess.run([sys.executable, "-c", CHECK, "cuda"], check=True)
