"""Carry out a batch of intents in the transaction that has claimed them.

The intents of one kind take each step together, so a batch costs as many round trips as one intent.
"""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from sqlalchemy import Connection

from taskyard import audit
from taskyard.access import Action
from taskyard.control.live_verb import KINDS
from taskyard.control.replay import KIND
from taskyard.outbox import Intent
from taskyard.relay.answer_silent_purge import answer_silent_purges
from taskyard.relay.carry_out_replay import carry_out_replays
from taskyard.relay.carry_out_verb import carry_out_verbs
from taskyard.relay.ports import Ports
from taskyard.relay.results import Postponed, Result, Results, Unaudited, write_results

__all__ = ["carry_out"]

_CarryOut = Callable[[Connection, Ports, Sequence[Intent]], Mapping[uuid.UUID, Result]]

_BY_KIND: Final[Mapping[str, _CarryOut]] = {
    KIND: carry_out_replays,
    Action.PURGE_QUEUE.value: answer_silent_purges,
} | dict.fromkeys(KINDS, carry_out_verbs)
"""What carries out the intents of a kind. Add a kind here; one that cannot be carried out together
with others goes through its intents one by one."""


def carry_out(connection: Connection, ports: Ports, intents: Sequence[Intent]) -> Results:
    """Carry out, refuse or postpone claimed intents; write and return the results.

    An intent without a result stays as it is, for the next batch.
    """
    results: dict[uuid.UUID, Result] = {}
    asked = audit.requested_among(connection, {each.id: each.job_id for each in intents})
    alike: dict[_CarryOut, list[Intent]] = defaultdict(list)
    for intent in intents:
        if intent.id not in asked:
            results[intent.id] = Unaudited()
        else:
            alike[_BY_KIND.get(intent.kind, _postpone_unknown)].append(intent)
    for act, together in alike.items():
        results |= act(connection, ports, together)
    write_results(connection, intents, results)
    return results


def _postpone_unknown(
    _: Connection, __: Ports, intents: Sequence[Intent]
) -> Mapping[uuid.UUID, Result]:
    # A newer version wrote it, and a relay of that version will carry it out.
    return {
        each.id: Postponed(f"this version does not know the intent {each.kind!r}")
        for each in intents
    }
