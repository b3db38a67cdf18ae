"""The cause why the ledger did not answer; without an answer its content is unknown, not empty."""

from __future__ import annotations

from typing import Final

from taskyard.errors import MissingSetting, SchemaMismatch, ServerRefused, ServerUnreachable

__all__ = ["LEDGER_OUTAGE"]

LEDGER_OUTAGE: Final = (MissingSetting, SchemaMismatch, ServerRefused, ServerUnreachable)
