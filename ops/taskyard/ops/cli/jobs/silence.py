"""Why the ledger says nothing: then what it holds is unknown, which is not the same as nothing."""

from __future__ import annotations

from typing import Final

from taskyard.errors import MissingSetting, SchemaMismatch, ServerRefused, ServerUnreachable

__all__ = ["SILENT"]

SILENT: Final = (MissingSetting, SchemaMismatch, ServerRefused, ServerUnreachable)
