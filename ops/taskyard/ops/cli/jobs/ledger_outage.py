"""The cause why the ledger did not answer; without an answer its content is unknown, not empty."""

from __future__ import annotations

from typing import Final

from taskyard.errors import MissingSetting, SchemaMismatch, ServerRefused, ServerUnreachable

__all__ = ["SILENT"]

SILENT: Final = (MissingSetting, SchemaMismatch, ServerRefused, ServerUnreachable)
