"""Parquet tables with a checksum per column, so that a reader checks just the columns that it reads."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline_lib.artefacts.atomic import atomic_path
from pipeline_lib.artefacts.digest import canonical_json, digest
from pipeline_lib.artefacts.sealing import DamageError, damage_named

if TYPE_CHECKING:
    import pyarrow as pa

SHAPES_NO_ARTEFACT = True

_KEY = "checksums"
_ROWS_AT_A_TIME = 1 << 16


def _column_digest(column: "pa.ChunkedArray") -> str:
    """SHA-256 of a column's values; it depends neither on how they are packed nor on the library's version."""
    hasher = hashlib.sha256()
    for start in range(0, len(column), _ROWS_AT_A_TIME):
        hasher.update(canonical_json(column.slice(start, _ROWS_AT_A_TIME).to_pylist()).encode())
    return hasher.hexdigest()


def write_table(path: Path, table: "pa.Table") -> None:
    """Write a table as Parquet, atomically, with the checksums of its columns in the metadata of its schema."""
    import pyarrow.parquet as pq

    each = {name: _column_digest(table[name]) for name in table.column_names}
    told = canonical_json({"rows": table.num_rows, "columns": each, "all": digest([table.num_rows, each])})
    with atomic_path(path) as temporary:
        with pq.ParquetWriter(temporary, table.schema, compression="zstd", store_schema=False) as writer:
            writer.write_table(table)
            writer.add_key_value_metadata({_KEY: told})


def read_table(
    path: Path, columns: Sequence[str] | None = None, maker: str = "`manifest build` makes it"
) -> "pa.Table":
    """Read some columns of a table that ``write_table`` wrote, and check them.

    Args:
        path: of the table.
        columns: which; those that the table has not are left out. None reads all.
        maker: what makes it, for the message if it is missing.

    Raises:
        UserError: the table is missing.
        DamageError: it is not as it was written.
    """
    import pyarrow.parquet as pq

    with damage_named(path, maker), pq.ParquetFile(path) as file:
        told: Mapping[str, Any] | None = json.loads((file.metadata.metadata or {}).get(_KEY.encode(), b"null"))
        if told is None:
            raise DamageError(path, "its columns have no checksums")
        rows, expected = told["rows"], told["columns"]
        if told["all"] != digest([rows, expected]) or set(expected) != set(file.schema_arrow.names):
            raise DamageError(path, "its columns are not those that were written")
        table = file.read(None if columns is None else [name for name in columns if name in expected])
        if table.num_rows != rows:
            raise DamageError(path, f"it has {table.num_rows} rows, {rows} were written")
        for name in table.column_names:
            if _column_digest(table[name]) != expected[name]:
                raise DamageError(path, f"the column {name} does not agree with its checksum")
    return table
