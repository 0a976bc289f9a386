"""The engine `synthetic` with twenty options more that change nothing."""

from __future__ import annotations

from dataclasses import field, fields, make_dataclass
from typing import Any, ClassVar

from mismatchscope.engines.base import Options
from mismatchscope.engines.synthetic.engine import SyntheticEngine
from mismatchscope.engines.synthetic.policy import SyntheticOptions

HARMLESS = tuple(f"harmless_{number}" for number in range(20))

ManyOptions: Any = make_dataclass(
    "ManyOptions",
    [(name, int, field(default=0)) for name in HARMLESS],
    bases=(SyntheticOptions,),
    frozen=True,
)


class ManyOptionsEngine(SyntheticEngine):
    name: ClassVar[str] = "many"
    options_type: ClassVar[type[Options]] = ManyOptions

    def facts(self) -> dict[str, Any]:
        assert len(fields(self.options)) > len(HARMLESS)
        return super().facts()
