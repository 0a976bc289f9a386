"""The real vLLM in the interpreter that runs mismatchscope itself, as on a machine with a GPU."""

from __future__ import annotations

import json
import os
import site
import subprocess
from pathlib import Path

import pytest

import mismatchscope as ms
from mismatchscope.environments import find

pytestmark = [pytest.mark.engines, pytest.mark.slow]

# What only mismatchscope needs comes last on the path, so that every package of the engine's is its own.
PROGRAM = f"""
import sys
sys.path += {site.getsitepackages()!r}
from mismatchscope.cli import main
main()
"""


def test_a_bare_spec_runs_where_it_is_installed(tmp_path: Path) -> None:
    environment = find("vllm")
    if environment is None:
        pytest.skip("make engines")
    variables = os.environ | {
        "MISMATCHSCOPE_HOME": str(tmp_path / "home"),  # where there is no environment to fall back on
        "PYTHONPATH": str(Path(ms.__file__).parent.parent),
    }

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [environment.python, "-c", PROGRAM, *arguments]
        return subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=300)

    facts = json.loads(run("doctor", "--json").stdout)
    (row,) = [row for row in facts["engines"] if row["engine"] == "vllm"]
    assert (row["ready"], row["version"], row["why"]) == (True, environment.version, None)
    assert (row["interpreter"], row["executable"]) == ("own", str(environment.python))
    sampling = ["--limit", "2", "--max-new-tokens", "8", "--no-repeats"]
    done = run(
        "audit", "--behavior", "vllm:enforce_eager=true", "--reference", "transformers", *sampling, "-o", "run"
    )
    assert done.returncode == 0, done.stderr
    behavior = ms.load_report(tmp_path / "run").provenance.behavior
    assert (behavior["engine"], behavior["engine_version"]) == ("vllm", environment.version)
    assert behavior["environment"]["executable"] == str(environment.python)
    assert run("audit", "--behavior", "vllm==0.1.2", "-o", "other").returncode == 3
