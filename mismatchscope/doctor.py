"""Facts about this machine and about every engine on it; `doctor --json` prints them."""

from __future__ import annotations

from typing import Any

from .engines.registry import engine_class, engine_names
from .environments import describe
from .environments.recipes import RECIPES
from .errors import SpecError
from .machine import machine_facts, package_version

_NEEDS = {"transformers": ("torch", "transformers")}


def examine() -> dict[str, Any]:
    """Machine, packages, variables, engines and their environments, JSON-serialisable; None is unknown."""
    environments = describe()
    return machine_facts() | {"engines": engines(environments), "environments": environments}


def engines(environments: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every registered engine: what it can see, whether it can run here, and what to type if it cannot."""
    found = []
    for name in engine_names():
        try:
            engine = engine_class(name)
        except (SpecError, ImportError) as error:
            found.append({"engine": name, "ready": False, "why": str(error)})
            continue
        capabilities = engine.capabilities
        if name in RECIPES:
            versions = [row["version"] for row in environments if row["name"] == name and row["broken"] is None]
            version = versions[0] if versions else None
            why = None if versions else f"no environment: mismatchscope env create {name}"
        else:
            needs = [package for package in _NEEDS.get(name, ()) if package_version(package) is None]
            version = package_version(name)
            why = f"missing {', '.join(needs)}: pip install 'mismatchscope[torch]'" if needs else None
        found.append(
            {
                "engine": name,
                "ready": why is None,
                "why": why,
                "version": version,
                "evidence": list(capabilities.evidence),
                "paths": list(capabilities.paths),
            }
        )
    return found
