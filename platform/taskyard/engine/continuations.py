"""Ids of continuations: a publication that is repeated must not be a second job."""

from __future__ import annotations

import uuid
from typing import Any, Final

__all__ = ["fix_continuations"]

_CONTINUATIONS: Final = uuid.UUID("1f0f3c56-5a56-5a0e-8a52-0c3a0f3f7a10")


def fix_continuations(request: Any) -> None:
    """Give callbacks without an id one that a repeated publication derives again."""
    for kind in ("callbacks", "errbacks"):
        for index, signature in enumerate(getattr(request, kind, None) or ()):
            options = signature.setdefault("options", {}) if isinstance(signature, dict) else {}
            name = f"{request.id}:{kind}:{index}"
            options.setdefault("task_id", str(uuid.uuid5(_CONTINUATIONS, name)))
