r"""Characters that steer a terminal, made visible: `\x1b` in text, `\u001b` in JSON.

What a job, a message or an operator wrote is shown as it is, but for control characters, escapes,
what turns the direction of writing round, and what cannot be seen at all. The joiners U+200C and
U+200D stay: Persian words and many emoji need them, and they move nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from taskyard.wire.steering import STEERING, escaped

__all__ = ["clean", "json_text", "one_line"]


def clean(text: str) -> str:
    """`text` with what steers a terminal escaped; tabs and newlines stay."""
    return escaped(text)


def one_line(text: object) -> str:
    """`clean` text on one line: what a job wrote cannot pass for a line of ours."""
    return clean(" ".join(str(text).split()))


def json_text(
    document: object, default: Callable[[Any], object] | None = None, indent: int | None = 2
) -> str:
    """`document` as JSON that a terminal shows as it is, and that parses to the same values."""
    text = json.dumps(document, indent=indent, ensure_ascii=False, default=default)
    return STEERING.sub(lambda found: json.dumps(found[0])[1:-1], text)
