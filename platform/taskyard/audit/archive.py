"""Archives of the audit log: seals with their rows in a compressed file, one JSON line per seal.

The rows are in the form that was hashed, so an archive can be verified without Postgres. The first
seal that stays in Postgres contains the hash of the last seal in the archive.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import uuid
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from taskyard.audit.canonical_bytes import ROW_COLUMNS
from taskyard.audit.seal_chain import Seal
from taskyard.errors import InvalidPayload

__all__ = ["Sealed", "archives_in", "ended_at", "read_archive", "write_archive"]

_FORM: Final = {"taskyard_audit_archive": 1}
_NAME: Final = re.compile(r"audit-(\d{12})-(\d{12})-(\d{8})-[0-9a-f]{12}\.jsonl\.gz")
_BYTES: Final = ("row_hashes", "prev_hash", "hash")


@dataclass(frozen=True, slots=True)
class Sealed:
    """A seal with its rows by their ids, each column as the text that was hashed."""

    seal: Seal
    rows: Mapping[int, Mapping[str, str | None]]


def write_archive(folder: Path, parts: Iterable[Sealed]) -> Path:
    """Write consecutive seals into one archive; the file appears only when it is whole and on disk.

    The file's name has the first and the last seal, the day of the last seal, and the beginning of
    its hash: the same seals have the same file. Only one process may write into a folder at a time:
    it removes the incomplete files of others. Raises OSError.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for left in folder.glob(".audit-*.partial"):
        left.unlink(missing_ok=True)
    partial = folder / f".audit-{uuid.uuid4().hex}.partial"
    first = last = None
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as raw:
            with gzip.GzipFile(fileobj=raw, mode="wb", filename="", mtime=0) as file:
                file.write(_line(_FORM))
                for part in parts:
                    first, last = first or part.seal, part.seal
                    file.write(_line(_document(part)))
            raw.flush()
            os.fsync(raw.fileno())
        if first is None or last is None:
            raise ValueError("expected at least one seal to archive, got none")
        path = folder / _name(first, last)
        partial.replace(path)
        _sync(folder)
    finally:
        partial.unlink(missing_ok=True)
    return path


def read_archive(path: Path) -> Iterator[Sealed]:
    """Return the seals of an archive in order; raises `InvalidPayload` for another kind of file."""
    number = 1
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            _check_form(json.loads(file.readline()))
            for number, line in enumerate(file, 2):  # noqa: B007 - named in the error
                yield _sealed(json.loads(line))
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError) as error:
        raise InvalidPayload(
            f"the archive {path} cannot be read at line {number}: {type(error).__name__}: {error}. "
            "Give a file that the relay wrote into TASKYARD_AUDIT_ARCHIVE_FOLDER"
        ) from error


def archives_in(folder: Path) -> list[Path]:
    """Return the archives in a folder, in the order of their seals."""
    return sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name))


def ended_at(path: Path) -> datetime:
    """Return the day on which an archive's last seal was made; the day is in the file's name."""
    found = _NAME.fullmatch(path.name)
    if found is None:
        raise ValueError(f"expected the name of an archive, got {path.name!r}")
    return datetime.strptime(found[3], "%Y%m%d").replace(tzinfo=UTC)


def _name(first: Seal, last: Seal) -> str:
    day = f"{last.sealed_at:%Y%m%d}"
    return f"audit-{first.seq:012}-{last.seq:012}-{day}-{last.hash.hex()[:12]}.jsonl.gz"


def _line(document: object) -> bytes:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _document(part: Sealed) -> dict[str, Any]:
    seal = part.seal
    facts = {name: getattr(seal, name) for name in Seal.__slots__}
    facts |= {name: getattr(seal, name).hex() for name in _BYTES}
    rows = [{name: row[name] for name in ROW_COLUMNS} for row in part.rows.values()]
    return {"seal": facts, "rows": rows}


def _check_form(document: object) -> None:
    if document != _FORM:
        raise ValueError("the file is not an archive of this version")


def _sealed(document: Mapping[str, Any]) -> Sealed:
    facts = dict(document["seal"])
    facts |= {name: bytes.fromhex(facts[name]) for name in _BYTES}
    facts["row_ids"] = tuple(int(row_id) for row_id in facts["row_ids"])
    rows = {int(row["id"]): {name: row[name] for name in ROW_COLUMNS} for row in document["rows"]}
    return Sealed(Seal(**facts), rows)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
