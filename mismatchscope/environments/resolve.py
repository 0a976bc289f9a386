"""From an engine SPEC to the interpreter that its worker runs in."""

from __future__ import annotations

from packaging.version import Version

from ..engines.spec import EngineSpec
from ..errors import EnvironmentMissingError
from ..machine import package_version
from .recipe import Recipe
from .recipes import RECIPES
from .store import find


def interpreter(spec: EngineSpec) -> str | None:
    """The interpreter for a SPEC; None is our own.

    `python=PATH` is taken as it is. An engine without a recipe runs in our own interpreter, and so does one that is
    a server already. Any other has an environment: of the version that the SPEC names, or the newest there is.
    Where there is none, an engine that is installed beside mismatchscope serves, if it is of that version.
    Raises `EnvironmentMissingError` where there is neither and `EnvironmentBrokenError` where it does not work.
    """
    if spec.python is not None or spec.url is not None or spec.name not in RECIPES:
        return spec.python
    recipe = RECIPES[spec.name]
    environment = find(spec.name, spec.version)
    if environment is None:
        installed = version_beside(recipe)
        if installed is not None and (spec.version is None or Version(spec.version) == installed):
            return None
        wanted = f"{spec.name}=={spec.version or recipe.default_version}"
        raise EnvironmentMissingError(
            f"There is no environment of {spec.name}{f' {spec.version}' if spec.version else ''} yet.",
            hint=f"mismatchscope env create {wanted}, or {spec.name}:python=PATH for one that you have",
        )
    environment.examine()
    return str(environment.python)


def version_beside(recipe: Recipe) -> Version | None:
    """The public version of an engine that is installed in our own interpreter, as the extras do; else None."""
    found = package_version(recipe.distribution) or package_version(recipe.cpu_distribution)
    return None if found is None else Version(Version(found).public)
