"""What every HTML page is made with: templates whose output is printable and escaped, and one style sheet."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import MissingDependencyError
from ..foreign_text import printable
from .summary import gate_value
from .text import count, estimate, number, one_line, probability, setting, share

_FILTERS = (one_line, count, estimate, gate_value, number, probability, setting, share)


def render_page(template: str, filters: Mapping[str, Callable[..., Any]], **content: Any) -> str:
    """A template of this package with its style, `filters` beside those that every page has.

    Raises `MissingDependencyError` without jinja2.
    """
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
        from markupsafe import Markup
    except ImportError:
        raise MissingDependencyError("jinja2", "report", "An HTML report") from None
    loader = PackageLoader("mismatchscope.reports")
    environment = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_printable,
    )
    environment.filters |= {function.__name__: function for function in _FILTERS} | dict(filters)
    style = loader.get_source(environment, "report.css")[0]
    return environment.get_template(template).render(
        **content,
        style=Markup(style),
        style_hash=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
    )


def _printable(value: object) -> object:
    """What a template shows: text that is no markup of ours is foreign."""
    return printable(value) if isinstance(value, str) and not hasattr(value, "__html__") else value
