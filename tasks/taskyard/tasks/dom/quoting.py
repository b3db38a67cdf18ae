"""Quote text for CSS, XPath and Playwright calls."""

from __future__ import annotations

import json
import re
from typing import Final

__all__ = ["css_string", "is_css_name", "js_string", "xpath_string"]

_CSS_NAME: Final = re.compile(r"-?[A-Za-z_][A-Za-z0-9_-]*")


def css_string(text: str) -> str:
    """Return a CSS string literal.

    Escapes are written as code points, which every parser reads in the same way.
    """
    escaped = "".join(f"\\{ord(each):x} " if each in '\\"\n\r\f' else each for each in text)
    return f'"{escaped}"'


def is_css_name(text: str) -> bool:
    """Return whether `text` can be an id or a class in a selector without escapes."""
    return _CSS_NAME.fullmatch(text) is not None


def xpath_string(text: str) -> str:
    """Return an XPath expression for `text`.

    XPath 1.0 has no escapes, so a text with both kinds of quotes is joined from parts.
    """
    if '"' not in text:
        return f'"{text}"'
    if "'" not in text:
        return f"'{text}'"
    parts = ", '\"', ".join(f'"{part}"' for part in text.split('"'))
    return f"concat({parts})"


def js_string(text: str) -> str:
    """Return a JavaScript string literal."""
    return json.dumps(text, ensure_ascii=False)
