"""`mismatchscope --help` is what people type most: it imports nothing heavy."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = (
    "httpx",
    "jinja2",
    "matplotlib",
    "numpy",
    "pandas",
    "pyarrow",
    "safetensors",
    "scipy",
    "torch",
    "transformers",
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


# Where it reads an option, typer itself imports pydantic.
@pytest.mark.parametrize(
    ("arguments", "heavy"),
    [("'--help'", {*HEAVY, "pydantic"}), ("'audit', '--help'", {*HEAVY}), ("'--version'", {*HEAVY})],
)
def test_help_imports_nothing_heavy(arguments: str, heavy: set[str]) -> None:
    program = PROGRAM.format(arguments=arguments, heavy=heavy)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "LOADED"


def test_importing_the_package_has_no_side_effects() -> None:
    program = f"import sys, mismatchscope; print(sorted(set({HEAVY}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
