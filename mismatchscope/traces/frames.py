"""The tables of a trace as pandas frames, for people. The comparison reads the files itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import MissingDependencyError, UsageError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from .reader import Trace


def sequences_frame(trace: Trace, columns: list[str] | None = None) -> pd.DataFrame:
    """The columns of sequences.parquet, one row a sequence; lists are numpy arrays.

    Raises `UsageError` for a column that is not there, `MissingDependencyError` without pandas.
    """
    _check_columns(columns, trace.sequence_columns)
    return _frame(trace.read_sequences(columns))


def tokens_frame(trace: Trace, columns: list[str] | None = None) -> pd.DataFrame:
    """The columns of tokens.parquet, one row a response token; else as `sequences_frame`."""
    import pyarrow as pa

    _check_columns(columns, trace.token_columns)
    return _frame(pa.Table.from_batches(trace.iter_tokens(columns)))


def _check_columns(columns: list[str] | None, known: list[str]) -> None:
    unknown = [name for name in columns or [] if name not in known]
    if unknown:
        raise UsageError(f"There is no column {unknown[0]!r}.", hint=f"the columns are {', '.join(known)}")


def _frame(table: pa.Table) -> pd.DataFrame:
    """Integers that may be unknown stay integers: Int64, which has a missing value."""
    import pyarrow as pa

    try:
        import pandas as pd
    except ImportError:
        raise MissingDependencyError("pandas", "frames", "A table of a trace") from None
    frame: pd.DataFrame = table.to_pandas()
    optional = [field.name for field in table.schema if field.nullable and pa.types.is_integer(field.type)]
    return frame.astype(dict.fromkeys(optional, pd.Int64Dtype()))
