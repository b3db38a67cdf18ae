"""Roles, rights and identities, cell by cell, and the page that shows them."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path

import pytest

from taskyard.access import RIGHTS, Action, Identity, Role, Scope
from taskyard.errors import NotPermitted

PAGE = Path(__file__).parents[2] / "docs" / "security.md"
CELLS = list(product(Action, Role))


def shown() -> dict[str, list[str]]:
    """The page's table: action -> cells of viewer, operator, admin, scope."""
    rows = re.findall(r"^\| `(\w+)` \| (.+) \|$", PAGE.read_text(), re.MULTILINE)
    return {action: [cell.strip() for cell in cells.split("|")] for action, cells in rows}


def test_every_action_has_a_right_and_a_row_of_the_page() -> None:
    assert set(RIGHTS) == set(Action)
    assert list(shown()) == [action.value for action in RIGHTS]


@pytest.mark.parametrize(("action", "role"), CELLS)
def test_a_role_may_do_what_the_page_says_and_nothing_else(action: Action, role: Role) -> None:
    cell = shown()[action][list(Role).index(role)]
    plain = Identity("a@example.com", via="test", role=role)
    named = Identity("a@example.com", via="test", role=role, granted=frozenset({action}))
    assert plain.may(action) == (cell == "yes")
    assert named.may(action) == (cell in {"yes", "by name"})
    if cell == "yes":
        plain.permit(action)
    else:
        with pytest.raises(NotPermitted, match=rf"has the role {role} and may not do {action}"):
            plain.permit(action)


@pytest.mark.parametrize("action", Action)
def test_what_touches_the_fleet_is_refused_to_whoever_is_bound(action: Action) -> None:
    assert shown()[action][3] == RIGHTS[action].scope
    bound = Identity("a@example.com", via="test", role=Role.ADMIN, queues=frozenset({"exec"}))
    if RIGHTS[action].scope is Scope.FLEET:
        with pytest.raises(
            NotPermitted,
            match=r"is bound to queues exec .* because the action affects jobs outside",
        ):
            bound.permit(action)
    else:
        bound.permit(action)


def test_a_bound_identity_acts_within_its_queues_and_domains_alone() -> None:
    identity = Identity(
        "a@example.com",
        via="test",
        role=Role.OPERATOR,
        queues=frozenset({"exec", "plan"}),
        domains=frozenset({"billing"}),
    )
    act = Action.CONTROLLED_REPLAY
    identity.permit_on(act, queues=["exec", "plan"], domain="billing")
    with pytest.raises(NotPermitted, match="in the queue 'ops'"):
        identity.permit_on(act, queues=["exec", "ops"], domain="billing")
    with pytest.raises(NotPermitted, match="belongs to the domain 'shop'"):
        identity.permit_on(act, queues=["exec"], domain="shop")
    with pytest.raises(NotPermitted, match="has no domain"):
        identity.permit_on(act, queues=["exec"], domain=None)
    assert identity.sees("exec", "billing")
    assert not identity.sees("exec", None)
    assert not identity.sees("ops", "billing")


def test_an_identity_bound_to_no_queue_may_act_in_none() -> None:
    identity = Identity("a@example.com", via="test", role=Role.ADMIN, queues=frozenset())
    with pytest.raises(NotPermitted, match="bound to queues none"):
        identity.permit_on(Action.CANCEL_REQUEST, queues=["exec"], domain=None)


def test_a_role_includes_those_before_it() -> None:
    included = {(a, b) for a, b in product(Role, Role) if a.includes(b)}
    v, o, a = Role
    assert included == {(v, v), (o, v), (o, o), (a, v), (a, o), (a, a)}
