"""The error of a value that no policy has, with the row that holds it."""

from __future__ import annotations


class IllegalRowError(ValueError):
    """`row` counts from 0 in the array that was given; `text` is what goes on behind "row 3"."""

    def __init__(self, row: int, text: str) -> None:
        super().__init__(f"row {row}{text}")
        self.row, self.text = row, text
