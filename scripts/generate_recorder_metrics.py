"""Write the table of docs/recorder.md: every metric that a recorder returns, with its definition.

    python scripts/generate_recorder_metrics.py

The table stands between `<!-- metrics -->` and `<!-- end -->`. tests/logs/test_recorder_metrics.py fails while it
is out of date.
"""

from __future__ import annotations

import re
from pathlib import Path

from mismatchscope.logs.recorder_metrics import METRICS, PREFIX

PAGE = Path(__file__).resolve().parent.parent / "docs" / "recorder.md"
_TABLE = re.compile(r"(?<=<!-- metrics -->\n).*?(?=<!-- end -->)", re.DOTALL)


def with_table(page: str) -> str:
    """The page with its table written anew."""
    rows = ["| name | definition |", "|---|---|"]
    rows += [f"| `{PREFIX}{name}` | {meaning.replace('|', chr(92) + '|')} |" for name, meaning in METRICS.items()]
    return _TABLE.sub(lambda _: "\n".join(rows) + "\n", page)


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
