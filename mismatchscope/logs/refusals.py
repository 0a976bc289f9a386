"""What a library or the system refuses of a log's file, as an error that names the file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import TraceError
from ..input_files import reason


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Raise `TraceError` in place of what pyarrow, a parser or the system raise of a file."""
    import pyarrow as pa

    try:
        yield
    except (OSError, ValueError, OverflowError, MemoryError, pa.ArrowException) as error:
        # A length that a damaged file states is asked of the system before it is found out.
        why = "it asks for more memory than there is" if isinstance(error, MemoryError) else reason(error)
        raise TraceError(
            f"The log {path} cannot be read: {why}.",
            hint="leave the file out, or write it again; docs/logs.md says what each format must hold",
        ) from error
