"""The header that marks a message whose own headers could not be decoded."""

from __future__ import annotations

from typing import Final

__all__ = ["UNREAD"]

UNREAD: Final = "taskyard_unread"
"""Holds the message's AMQP properties as bytes, flags first, in place of all headers."""
