from __future__ import annotations

import pytest
from hypothesis import settings

from mismatchscope.measures import kernel

# A busy machine is no failure.
settings.register_profile("without deadlines", deadline=None)
settings.load_profile("without deadlines")

HAS_COMPILER = kernel.backend() == "c"


@pytest.fixture
def compiled_kernel() -> None:
    """For tests of what only the compiled file does."""
    if not HAS_COMPILER:
        pytest.skip("there is no C compiler")


@pytest.fixture(params=["c", "numpy"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each test runs on both: the compiled file, and what takes its place without a compiler."""
    if request.param == "c" and not HAS_COMPILER:
        pytest.skip("there is no C compiler")
    if request.param == "numpy":
        monkeypatch.setattr(kernel, "library", lambda: None)
    return request.param
