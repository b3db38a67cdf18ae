"""Who may do what: actions, roles, identities. Without database or broker: every process has it."""

from taskyard.access.actions import Action, Scope
from taskyard.access.identity import Identity
from taskyard.access.roles import RIGHTS, Right, Role

__all__ = ["RIGHTS", "Action", "Identity", "Right", "Role", "Scope"]
