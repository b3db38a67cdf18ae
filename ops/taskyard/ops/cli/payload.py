"""A payload as people give it: JSON, a file with JSON, or standard input."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from taskyard.errors import InvalidPayload

__all__ = ["read_payload"]


def read_payload(written: str) -> Any:
    """The document that `written` is (JSON) or names (`@FILE`, `-`); raises `InvalidPayload`."""
    text, source = _text(written)
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise InvalidPayload(
            f'{source} is not JSON: {error}. Expected a document such as \'{{"name": "value"}}\', '
            "@FILE, or - for standard input"
        ) from error


def _text(written: str) -> tuple[str, str]:
    try:
        if written == "-":
            return sys.stdin.read(), "standard input"
        if written.startswith("@"):
            return Path(written[1:]).read_text("utf-8"), written[1:]
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidPayload(f"the payload cannot be read: {error}") from error
    return written, "the payload"
