"""What a run depends on and its settings only name: the weights behind a path, the packages behind an engine.

It is found out without an engine, so that a run with nothing left to make is compared with what is there now too.
"""

from __future__ import annotations

from typing import Any

from .. import __version__
from ..engines.common.checkpoint_engine import CheckpointEngine, describe_model
from ..engines.registry import engine_class
from ..engines.spec import EngineSpec, resolve_options
from ..environments import interpreter
from ..environments.packages import package_versions
from ..errors import ModelError
from ..traces.schema import Manifest, ModelFacts


class RunContent:
    """Of one command and its `model`, a path or hub id. Every engine's packages and every model are read once."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._packages: dict[str, dict[str, str]] = {}
        self._models: dict[tuple[str, bool], ModelFacts] = {}

    def packages(self, spec: EngineSpec) -> dict[str, str]:
        """The versions of this package and of those that the engine is made of; of a server's, nothing is known."""
        if str(spec) not in self._packages:
            names = engine_class(spec.name, served=spec.served).packages
            found = package_versions(interpreter(spec), names) if names else {}
            self._packages[str(spec)] = {"mismatchscope": __version__} | found
        return self._packages[str(spec)]

    def model_facts(self, spec: EngineSpec, earlier: Manifest) -> ModelFacts:
        """The model of a trace that was begun `earlier`, as its files are now; its weights are hashed.

        Nothing is known where a server has the files, where an engine reads none, or where a hub's copy can only be
        found by the engine's interpreter. Raises `ModelError` where the model is gone.
        """
        if not issubclass(engine_class(spec.name, served=spec.served), CheckpointEngine):
            return ModelFacts()
        options: Any = resolve_options(spec)
        key = (options.adapter, options.trust_remote_code)
        if key not in self._models:
            try:
                *_, facts = describe_model(self._model, *key, download=not earlier.complete)
            except ImportError:
                facts = {}
            except ModelError as error:
                if not earlier.complete:
                    raise
                raise ModelError(
                    f"Nothing says that the traces there are of the model that is meant: {error.message}.",
                    hint="put the model back; mismatchscope compare measures traces as they are",
                ) from error
            facts.pop("vocabulary_size", None)  # of the embedding, which the engine has counted
            self._models[key] = ModelFacts(**facts)
        return self._models[key]
