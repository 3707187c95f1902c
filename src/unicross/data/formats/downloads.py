"""What img2dataset notes of its downloads beside the pictures: `00000.parquet` with a status for each
address."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from unicross.data.formats.shards import find_files
from unicross.data.records import Problem

NOTED = {"key", "status", "url"}
"""Columns of such a file."""
SUCCESS = "success"


def is_note(path: Path) -> bool:
    """Whether a Parquet file is such a note; one that holds the pictures themselves is not."""
    try:
        schema = pq.read_schema(path)
    except (OSError, pa.ArrowException):
        return False
    names = {name.lower() for name in schema.names}
    return names >= NOTED and not any(
        pa.types.is_binary(field.type) or pa.types.is_large_binary(field.type) for field in schema
    )


def failed_downloads(root: Path) -> tuple[list[Problem], list[Path]]:
    """What could not be downloaded, by file; the files that say so."""
    problems = []
    notes = [path for path in find_files(root, ".parquet") if is_note(path)]
    for path in notes:
        try:
            status = pq.read_table(path, columns=["status"])["status"].to_pylist()
        except (OSError, pa.ArrowException) as error:
            problems.append(Problem("not read", str(path), f"the downloader's notes ({error})"))
            continue
        failed = Counter(str(one) for one in status if one != SUCCESS)
        if failed:
            listed = ", ".join(f"{reason} {count}" for reason, count in failed.most_common())
            what = f"{failed.total()} of {len(status)} pictures were not downloaded ({listed})"
            problems.append(Problem("not read", str(path), what))
    return problems, notes
