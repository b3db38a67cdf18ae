r"""Characters that steer a terminal, made visible: `\x1b` in text, `\u001b` in JSON.

What a job, a message or an operator wrote is shown as it is, but for control characters, escapes,
what turns the direction of writing round, and what cannot be seen at all. The joiners U+200C and
U+200D stay: Persian words and many emoji need them, and they move nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, Final

__all__ = ["clean", "json_text", "one_line"]

_STEERING: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 but tab and newline, DEL, C1
    "\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e007f\ud800-\udfff]"  # tags; lone surrogates, which UTF-8 cannot hold
)
_BYTE: Final = 0xFF
_PLANE: Final = 0xFFFF


def clean(text: str) -> str:
    """`text` with what steers a terminal escaped; tabs and newlines stay."""
    return _STEERING.sub(_escaped, text)


def one_line(text: object) -> str:
    """`clean` text on one line: what a job wrote cannot pass for a line of ours."""
    return clean(" ".join(str(text).split()))


def json_text(
    document: object, default: Callable[[Any], object] | None = None, indent: int | None = 2
) -> str:
    """`document` as JSON that a terminal shows as it is, and that parses to the same values."""
    text = json.dumps(document, indent=indent, ensure_ascii=False, default=default)
    return _STEERING.sub(lambda found: json.dumps(found[0])[1:-1], text)


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code <= _BYTE:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= _PLANE else f"\\U{code:08x}"
