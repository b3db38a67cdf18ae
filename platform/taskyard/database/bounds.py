"""What an identity sees of a list: `Identity.sees` as a condition of a query."""

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
    """Narrow `query` to the queues and domains of `identity`; None sees everything.

    A row without a queue or without a domain lies within no bound of that kind.
    """
    if identity is None:
        return query
    for column, bound in ((queue, identity.queues), (domain, identity.domains)):
        if bound is not None:
            query = query.where(column.in_(sorted(bound)))
    return query
