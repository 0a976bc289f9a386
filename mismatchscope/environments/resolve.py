"""From an engine SPEC to the interpreter that its worker runs in."""

from __future__ import annotations

from ..engines.spec import EngineSpec
from ..errors import EnvironmentMissingError
from .recipes import RECIPES
from .store import find


def interpreter(spec: EngineSpec) -> str | None:
    """The interpreter for a SPEC; None is our own.

    `python=PATH` is taken as it is. An engine without a recipe runs in our own interpreter, and so does one that is
    a server already. Any other has an environment: of the version that the SPEC names, or the newest there is.
    Raises `EnvironmentMissingError` where there is none and `EnvironmentBrokenError` where it does not work.
    """
    if spec.python is not None or spec.url is not None or spec.name not in RECIPES:
        return spec.python
    environment = find(spec.name, spec.version)
    if environment is None:
        wanted = f"{spec.name}=={spec.version or RECIPES[spec.name].default_version}"
        raise EnvironmentMissingError(
            f"There is no environment of {spec.name}{f' {spec.version}' if spec.version else ''} yet.",
            hint=f"mismatchscope env create {wanted}, or {spec.name}:python=PATH for one that you have",
        )
    environment.examine()
    return str(environment.python)
