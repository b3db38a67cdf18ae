"""Text put into CSS, XPath and Playwright calls so that it means itself."""

from __future__ import annotations

import json
import re
from typing import Final

__all__ = ["css_string", "is_css_name", "js_string", "xpath_string"]

_CSS_NAME: Final = re.compile(r"-?[A-Za-z_][A-Za-z0-9_-]*")


def css_string(text: str) -> str:
    """A CSS string literal; escapes are written as code points, which every parser reads alike."""
    escaped = "".join(f"\\{ord(each):x} " if each in '\\"\n\r\f' else each for each in text)
    return f'"{escaped}"'


def is_css_name(text: str) -> bool:
    """Whether `text` can stand as an id or class in a selector without escapes."""
    return _CSS_NAME.fullmatch(text) is not None


def xpath_string(text: str) -> str:
    """An XPath expression for `text`; XPath 1.0 has no escapes, so mixed quotes are joined."""
    if '"' not in text:
        return f'"{text}"'
    if "'" not in text:
        return f"'{text}'"
    parts = ", '\"', ".join(f'"{part}"' for part in text.split('"'))
    return f"concat({parts})"


def js_string(text: str) -> str:
    """A JavaScript string literal."""
    return json.dumps(text, ensure_ascii=False)
