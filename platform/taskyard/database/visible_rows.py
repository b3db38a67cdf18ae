"""Limit a list to what an identity may see: `Identity.sees` as a condition of a query."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Select

from taskyard.access import Identity

__all__ = ["seen_by"]


def seen_by(
    identity: Identity | None,
    query: Select[Any],
    *,
    queue: ColumnElement[Any],
    domain: ColumnElement[Any],
) -> Select[Any]:
    """Limit `query` to the queues and domains of `identity`; None sees everything.

    An identity that is limited to queues does not see a row without a queue. The same is true for
    domains.
    """
    if identity is None:
        return query
    for column, bound in ((queue, identity.queues), (domain, identity.domains)):
        if bound is not None:
            query = query.where(column.in_(sorted(bound)))
    return query
