"""Exported heads: hashes of the chain's last seal, at some moments.

A head is stored outside Postgres, where the owner of the database cannot change it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Final

from taskyard.audit.seal_chain import Seal
from taskyard.errors import InvalidPayload
from taskyard.wire.redacted_logs import logger

__all__ = ["Head", "HeadFile", "exported", "given_heads"]

log = logger(__name__)

_WITH_NUMBER: Final = re.compile(r"(?P<seq>\d{1,18}):(?P<hash>[0-9a-f]{64})")
_WRITTEN: Final = re.compile(r"(?:(?P<seq>\d{1,18}):)?(?P<hash>[0-9a-f]{64})")
_SENTENCE: Final = (
    "audit log sealed up to seal %d; keep this hash (the head) to verify the log later: %s"
)
# A log quotes ids that clients choose, which may look like heads: only the whole sentence at the
# end of a line is one.
_IN_LINE: Final = re.compile(
    r"(?:^|\s)"
    + re.escape(_SENTENCE).replace("%d", r"(?P<seq>\d{1,18})").replace("%s", "")
    + r"(?P=seq):(?P<hash>[0-9a-f]{64})$"
)


@dataclass(frozen=True, slots=True)
class Head:
    """Number and hash of the last seal at some moment, as `seq:hash` or only the hash.

    `sealed_at` is the time that a file of heads states; None if it is unknown.
    """

    seq: int | None
    hash: bytes
    sealed_at: datetime | None = field(default=None, compare=False)

    def __str__(self) -> str:
        return self.hash.hex() if self.seq is None else f"{self.seq}:{self.hash.hex()}"


def exported(seal: Seal, file: HeadFile | None) -> None:
    """Write the head to the log, and to the file of heads if there is such a file."""
    head = Head(seal.seq, seal.hash)
    log.info(
        _SENTENCE,
        seal.seq,
        head,
        extra={"action": "audit_sealed", "head": str(head), "rows": len(seal.row_ids)},
    )
    if file is not None:
        file.append(seal)


class HeadFile:
    """A file of heads, one JSON line each. It only grows: an earlier head is evidence too."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def append(self, seal: Seal) -> None:
        """Append a line for the head.

        If the file cannot be written, the failure is logged and sealing continues.
        """
        line = {
            "head": str(Head(seal.seq, seal.hash)),
            "sealed_at": seal.sealed_at.isoformat(timespec="seconds"),
        }
        try:
            # One write; it starts a new line, since a crash may have cut the previous one.
            with self._path.open("ab") as file:
                start = b"" if file.tell() == 0 or self._ends_whole() else b"\n"
                file.write(start + json.dumps(line).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            log.error(  # the log line above has the same head
                "the head of the audit log could not be written to %s: %s. Correct the path in "
                "TASKYARD_AUDIT_HEAD_FILE; the next head will be written there",
                self._path,
                error,
                extra={"action": "audit_head_not_written"},
            )

    def last(self) -> Head | None:
        """Return the last head that can be read; None if there is none."""
        if not self._path.exists():
            return None
        found = None
        for found in _of_file(self._path):  # noqa: B007 - only the last one counts
            pass
        return found

    def _ends_whole(self) -> bool:
        with self._path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"


def given_heads(words: list[str]) -> list[Head]:
    """Return the heads that `words` name, either directly or as files with heads.

    Raises `InvalidPayload` for a word that is neither a head nor a file, and for a file without a
    head.
    """
    heads: list[Head] = []
    for word in words:
        written = _WRITTEN.fullmatch(word.strip().lower())
        if written is not None:
            heads.append(_head(written))
            continue
        try:
            found = list(_of_file(Path(word)))
        except OSError as error:
            raise InvalidPayload(
                "expected a head (SEQ:HASH, or the hash alone), or a file with heads, got "
                f"{word[:200]!r}: {error.strerror}"
            ) from error
        if not found:
            raise InvalidPayload(
                f"the file {word} contains no head: expected lines with SEQ:HASH. Give the file "
                "that TASKYARD_AUDIT_HEAD_FILE names, or a saved log of the relay"
            )
        heads += found
    return heads


def _of_file(path: Path) -> Iterator[Head]:
    """Yield the heads in a file, also in a log file; lines without one are skipped."""
    with path.open("r", encoding="utf-8", errors="replace") as file:
        for line in file:
            head = _of_line(line.strip())
            if head is not None:
                yield head


def _of_line(line: str) -> Head | None:
    """Return the head in a line: a head alone, or a line of the relay's log or of its file."""
    if not line.startswith("{"):
        found = _WITH_NUMBER.fullmatch(line) or _IN_LINE.search(line)
        return None if found is None else _head(found)
    try:
        document = json.loads(line)
    except (ValueError, RecursionError):
        return None
    found = _WITH_NUMBER.fullmatch(str(document.get("head")))
    if found is not None:
        return replace(_head(found), sealed_at=_moment(document.get("sealed_at")))
    sentences = (_IN_LINE.search(text) for text in document.values() if isinstance(text, str))
    return next((_head(found) for found in sentences if found is not None), None)


def _head(found: re.Match[str]) -> Head:
    seq = found["seq"]
    return Head(None if seq is None else int(seq), bytes.fromhex(found["hash"]))


def _moment(written: object) -> datetime | None:
    """Return the time that a line of `HeadFile` states; a line of a log has none."""
    try:
        moment = datetime.fromisoformat(str(written))
    except ValueError:
        return None
    return None if moment.tzinfo is None else moment
