"""`mismatchscope --help` is what people type most: it imports nothing heavy."""

from __future__ import annotations

import subprocess
import sys

import pytest

# pydantic is not among them: typer itself imports it where it is installed.
HEAVY = (
    "torch",
    "transformers",
    "pandas",
    "pyarrow",
    "scipy",
    "matplotlib",
    "jinja2",
    "numpy",
    "safetensors",
    "httpx",
)

PROGRAM = """
import sys
sys.argv = ["mismatchscope", {arguments}]
from mismatchscope.cli import main
try:
    main()
except SystemExit:
    pass
print("LOADED", *sorted({heavy} & set(sys.modules)))
"""


@pytest.mark.parametrize("arguments", ["'--help'", "'audit', '--help'", "'--version'"])
def test_help_imports_nothing_heavy(arguments: str) -> None:
    program = PROGRAM.format(arguments=arguments, heavy=set(HEAVY))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "LOADED"


def test_importing_the_package_has_no_side_effects() -> None:
    program = f"import sys, mismatchscope; print(sorted(set({HEAVY}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
