"""What a recipe is: how one engine is installed into an environment of its own.

To add an engine that needs one, write one file with a `RECIPE` and add one line to `recipes.RECIPES`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ..errors import SpecError
from .build import Build


@dataclass(frozen=True)
class Recipe:
    """An engine's two ways of being installed.

    On a machine with a GPU its official package, as pip installs it. Without one `install_cpu`, which is given the
    `Build` and leaves the distribution `cpu_distribution` behind. `default_version` is the one that was tried.
    """

    name: str
    default_version: str
    distribution: str
    cpu_distribution: str
    install_cpu: Callable[[Build], None]
    imports: tuple[str, ...]
    """Modules that must import in the finished environment; half a minute that finds what pip cannot see."""
    cpu_versions: tuple[str, ...] | None = None
    """The versions that `install_cpu` can install; None leaves that to pip."""
    cpu_variables: dict[str, str] = field(default_factory=dict)
    """What the process environment must say before the engine is imported on a machine without a GPU."""

    def check_version(self, version: str, *, gpu: bool) -> None:
        """Raise `SpecError` for a version that cannot be installed on this kind of machine."""
        if gpu or self.cpu_versions is None or version in self.cpu_versions:
            return
        raise SpecError(
            f"Without a GPU, {self.name} {version} cannot be installed.",
            hint=f"mismatchscope env create {self.name}=={self.cpu_versions[-1]}",
        )

    def install(self, build: Build) -> str:
        """Install the engine, see that it imports, and return the name of the distribution that provides it."""
        if build.gpu:
            build.pip_install(f"{self.distribution}=={build.version}", step=f"install {self.name} {build.version}")
        else:
            self.install_cpu(build)
        build.check_imports(self.imports, {} if build.gpu else self.cpu_variables)
        return self.distribution if build.gpu else self.cpu_distribution
