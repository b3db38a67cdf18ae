"""Who may do what: actions, roles, identities, signed credentials. Needs no database or broker."""

from taskyard.access.actions import Action, Scope
from taskyard.access.identity import Identity
from taskyard.access.operator_roles import RIGHTS, Right, Role
from taskyard.access.token_text import Token

__all__ = ["RIGHTS", "Action", "Identity", "Right", "Role", "Scope", "Token"]
