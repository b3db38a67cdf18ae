r"""Make characters that control a terminal visible: `\x1b` in text, `\u001b` in JSON.

Text from jobs, messages and operators is shown unchanged, except for control characters, escape
sequences, characters that change the writing direction, and invisible ones. The joiners U+200C and
U+200D stay: Persian words and many emoji need them, and they move nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from taskyard.wire.control_characters import STEERING, escaped

__all__ = ["clean", "json_text", "one_line"]


def clean(text: str) -> str:
    """Return `text` with a terminal's control characters escaped; tabs and newlines stay."""
    return escaped(text)


def one_line(text: object) -> str:
    """Return `clean` text on one line, so that a job's text cannot look like a line of Taskyard."""
    return clean(" ".join(str(text).split()))


def json_text(
    document: object, default: Callable[[Any], object] | None = None, indent: int | None = 2
) -> str:
    """Return `document` as JSON that is safe to show and parses to the same values."""
    text = json.dumps(document, indent=indent, ensure_ascii=False, default=default)
    return STEERING.sub(lambda found: json.dumps(found[0])[1:-1], text)
