"""Read a payload from the command line: JSON, a file with JSON, or standard input."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from taskyard.control import Edit
from taskyard.errors import InvalidPayload

__all__ = ["read_edit", "read_payload"]


def read_edit(payload: str | None, args: str | None, kwargs: str | None) -> Edit | None:
    """Read a job's new arguments from options, None if there are none; raises `InvalidPayload`."""
    if payload is None and args is None and kwargs is None:
        return None
    if payload is not None:
        if args is not None or kwargs is not None:
            raise InvalidPayload(
                "--payload is the only argument of a job, --args and --kwargs are all arguments "
                "of a task; give either --payload or these"
            )
        return Edit(args=[read_payload(payload)], payload_only=True)
    positional = [] if args is None else _read(args, "--args", "'[\"Ada\", 7]'")
    named = {} if kwargs is None else _read(kwargs, "--kwargs", "'{\"cents\": 7}'")
    if not isinstance(positional, list) or not isinstance(named, dict):
        raise InvalidPayload(
            "--args is a JSON list of all positional arguments, --kwargs a JSON object of all "
            f"named ones; got {type(positional).__name__} and {type(named).__name__}"
        )
    return Edit(args=positional, kwargs=named)


def read_payload(written: str) -> Any:
    """Return the document that `written` is (JSON) or names (`@FILE`, `-`).

    Raises `InvalidPayload`.
    """
    return _read(written, "the payload", '\'{"name": "value"}\'')


def _read(written: str, what: str, example: str) -> Any:
    text, source = _text(written, what)
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise InvalidPayload(
            f"{source} is not JSON: {error}. Expected a document such as {example}, @FILE, or - "
            "for standard input"
        ) from error


def _text(written: str, what: str) -> tuple[str, str]:
    try:
        if written == "-":
            return sys.stdin.read(), "standard input"
        if written.startswith("@"):
            return Path(written[1:]).read_text("utf-8"), written[1:]
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidPayload(f"{what} cannot be read: {error}") from error
    return written, what
