"""The kernel against the compiled path. In a process of its own: Triton decides at import whether to interpret."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

CHECK = """
import numpy as np, torch, sys
from mismatchscope.measures import fused, fused_triton
torch.manual_seed(0)
device = sys.argv[1]
mu = torch.randn(3, 9001) * 3
top_k = mu.clone(); top_k[:, 20:] = -torch.inf
near, far = mu + torch.randn(3, 9001) * 1e-2, torch.randn(3, 9001) + 90
for a, b in ((mu, near), (mu.bfloat16(), far), (top_k, mu), (mu, top_k)):
    ids = torch.tensor([0, 19, 5])
    on_gpu = fused_triton.fused_divergences(a.to(device), b.to(device), ids)
    on_cpu = fused.fused_divergences(a, b, ids)
    for name in (*fused.FIELDS, "log_ratio"):
        np.testing.assert_allclose(getattr(on_gpu, name), getattr(on_cpu, name), rtol=1e-4, atol=1e-6)
for bad in (torch.nan, torch.inf):
    broken = mu.clone(); broken[1, 7] = bad
    try:
        fused_triton.fused_divergences(mu.to(device), broken.to(device))
    except ValueError as error:
        assert "row 1" in str(error)
    else:
        raise AssertionError(bad)
"""


def test_the_kernel_in_tritons_interpreter():
    pytest.importorskip("triton")
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    subprocess.run([sys.executable, "-W", "ignore", "-c", CHECK, "cpu"], env=environment, check=True)


@pytest.mark.gpu
def test_the_kernel_on_a_gpu():
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("there is no GPU")
    subprocess.run([sys.executable, "-c", CHECK, "cuda"], check=True)
