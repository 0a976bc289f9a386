"""The engines that have an environment of their own, by name; every other engine runs in our own interpreter."""

from __future__ import annotations

from ..errors import SpecError
from . import sglang, vllm
from .recipe import Recipe

RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in (vllm.RECIPE, sglang.RECIPE)}


def recipe_for(name: str) -> Recipe:
    """The recipe of an engine; `SpecError` for an engine that has none."""
    if name not in RECIPES:
        raise SpecError(
            f"There is no environment to make for '{name}'.",
            hint=f"environments are made for {' and '.join(RECIPES)}; other engines need none",
        )
    return RECIPES[name]
