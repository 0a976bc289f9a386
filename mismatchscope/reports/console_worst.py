"""The states of largest TV on a terminal, each with the text around it."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from ..foreign_text import printable
from .moved_token import moved_most
from .text import number
from .worst_fields import WorstToken

WORST = ("farthest apart", "what moved most, μ → π; the sampled token between » «")
_CONTEXT_WIDTH = 20  # characters before the sampled token
_BEFORE_CONTEXT = 46  # columns that TV and the moved token take
_LEAST = 20


def worst_tokens(tokens: Sequence[WorstToken], width: int) -> Table:
    """One line a state, none wider than the terminal."""
    table = Table.grid(padding=(0, 2, 0, 0))
    for token in tokens:
        context = _context(token)
        context.truncate(max(width - _BEFORE_CONTEXT, _LEAST), overflow="ellipsis")
        table.add_row(Text(f"  TV {number(token.tv)}"), Text(moved_most(token), style="dim"), context)
    return table


def _context(token: WorstToken) -> Text:
    """The end of what comes before the token, the token, and what follows as far as the line goes."""
    pieces = [piece.text for piece in token.context]
    left, right = (printable("".join(side)) for side in (pieces[: token.focus], pieces[token.focus + 1 :]))
    focus = pieces[token.focus] if pieces else f"id {token.token_id}"
    return Text.assemble(
        (f"…{left[-_CONTEXT_WIDTH:]}" if len(left) > _CONTEXT_WIDTH else left, "dim"),
        (printable(f"»{focus}«"), "bold reverse"),
        (right, "dim"),
    )
