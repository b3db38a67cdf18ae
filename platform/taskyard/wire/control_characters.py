r"""Characters that control how a text is shown: find or escape them.

They are control characters, characters that change the writing direction, and invisible ones. Tab
and newline are text. So are the joiners U+200C and U+200D: Persian words and many emoji need them,
and they move nothing.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["STEERING", "escaped"]

STEERING: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 except tab and newline, DEL, C1
    "\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e007f\ud800-\udfff]"  # tags; lone surrogates, which UTF-8 cannot hold
)
"""One such character."""

_BYTE: Final = 0xFF
_PLANE: Final = 0xFFFF


def escaped(text: str) -> str:
    r"""Return `text` with control characters escaped: `\x1b`, `\u202e`, `\U000e0001`."""
    return STEERING.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code <= _BYTE:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= _PLANE else f"\\U{code:08x}"
