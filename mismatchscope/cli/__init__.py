"""The command line: parse, call, render, exit code. What the verbs do lives in the rooms they call.

stdout is data and the answer, stderr progress and errors. Exit codes: 0 pass, 1 a gate failed, 2 usage,
3 failure, 4 inconclusive or not comparable, 130 interrupted.
"""

from . import measure, answer, environments  # noqa: I001 - the order in which --help lists them
from .frame import app, main

__all__ = ["answer", "app", "environments", "main", "measure"]
