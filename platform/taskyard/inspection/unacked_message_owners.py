"""Which worker holds a message, whether that worker lives, and when the message comes back.

With Taskyard's transport the message's tag names its owner, whose heartbeat is at the broker. With
kombu's transport a tag names no worker. Then the record names the worker of a running job, and
workers list all other messages that they hold in their heartbeat beside the records.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import redis

from taskyard.clock import us_of
from taskyard.inspection.broker_keys_to_search import MessageLocations
from taskyard.inspection.find_messages import Held
from taskyard.inspection.record_fields import Seen
from taskyard.jobs.states import State
from taskyard.records import Fleet, Member, Records, left_by_dead, lives
from taskyard.settings import Settings
from taskyard.transport import OWNER_TTL_S, Owner, owner_of, read_owners

__all__ = ["Holders", "Return", "look_for_holders"]

# kombu looks for overdue messages in every tenth of its rounds, which are 10 s apart.
_KOMBU_LOOKS_S: Final = 100.0
_KOMBU_VISIBILITY_S: Final = 3600.0
# Two sweeps are a second apart, and each gives back a limited number.
_SWEEP_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Return:
    """When a dead worker's message comes back, and which worker returns the message.

    `at_us` is None if no running worker would return it. `sure`: the holder was seen alive before
    its heartbeat stopped, so it is safe to return its message.
    """

    holder: str
    at_us: int | None
    how: str
    sure: bool


@dataclass(frozen=True)
class Holders:
    """All live workers, with the time of each one's last heartbeat by their own server's clock."""

    lease_s: float
    owners_now_us: int
    owners: Mapping[str, Owner]
    members_now_us: int
    members: Sequence[Member]

    @cached_property
    def _left(self) -> set[str]:
        return left_by_dead(self.members, self.members_now_us)

    @cached_property
    def _named(self) -> set[str]:
        """Return the tags of all messages that a worker, living or dead, has listed as held."""
        return {tag for member in self.members for tag in member.held}

    def is_unknown(self, held: Held, seen: Seen) -> bool:
        """Return whether the holder of a message is unknown.

        Then neither tag, record nor heartbeat names the holder.
        """
        runs = seen.state is State.RUNNING
        return not owner_of(held.tag) and not runs and held.tag not in self._named

    def judge(self, held: Held, seen: Seen, since_us: int) -> Return | None:
        """Return when a dead holder's message comes back; None if the holder lives or may live.

        `since_us` is when the message was taken, by the broker's index.
        """
        if seen.state is State.RUNNING and seen.numbers["lease_until"] > self.members_now_us:
            return None
        return self.look(held, seen, since_us)

    def look(self, held: Held, seen: Seen, since_us: int) -> Return | None:
        """Return when a dead holder's message comes back, without regard to the job's lease.

        `judge` returns None until the lease of a running job has expired.
        """
        owner = owner_of(held.tag)
        if owner:
            return self._by_owner(held, owner, since_us)
        return self._by_record(held, seen, since_us)

    def _by_owner(self, held: Held, name: str, since_us: int) -> Return | None:
        owner = self.owners.get(name)
        if owner is not None and owner.alive(self.owners_now_us):
            return None
        holder = f"process {name.rpartition('.')[0]}"
        if owner is None:
            at_us, how = self._visibility(held, since_us)
            return Return(holder, at_us, how, sure=False)
        sweepers = [one for one in self.owners.values() if self._sweeps(one, held)]
        if not sweepers:
            queues = ", ".join(owner.queues) or "its queues"
            how = f"no running worker would give it back: start one for {queues}"
            return Return(holder, None, how, sure=True)
        silent_us = owner.seen_us + us_of(OWNER_TTL_S)
        at_us = max(silent_us, self.owners_now_us) + us_of(_SWEEP_S)
        count = f"{len(sweepers)} consumer{'s' * (len(sweepers) != 1)}"
        return Return(
            holder, at_us, f"{count} of the same broker will give back what it held", sure=True
        )

    def _sweeps(self, owner: Owner, held: Held) -> bool:
        same = (owner.unacked, owner.index) == (held.unacked, held.index)
        return same and owner.alive(self.owners_now_us)

    def _by_record(self, held: Held, seen: Seen, since_us: int) -> Return | None:
        worker, began_us = seen.texts["worker"], seen.numbers["started"]
        if seen.state is not State.RUNNING:
            if held.tag not in self._left:
                return None
            worker = next(one.worker for one in self.members if held.tag in one.held)
        elif lives(self.members, worker, began_us, self.members_now_us):
            return None
        heard_of = any(one.worker == worker for one in self.members)
        late_us, how = self._visibility(held, since_us)
        if not any(self._returns(one, held) for one in self.members):
            how = f"{how}; Taskyard's transport gives back within seconds"
            return Return(f"worker {worker}", late_us, how, sure=heard_of)
        wait_us = us_of(self.lease_s / 3)
        at_us = max(seen.numbers["lease_until"] + wait_us, self.members_now_us) + wait_us
        how = f"a worker that protects its task gives it back; at the latest {how}"
        return Return(f"worker {worker}", at_us, how, sure=heard_of)

    def _returns(self, member: Member, held: Held) -> bool:
        same = (member.unacked, member.index) == (held.unacked, held.index)
        return same and member.returns and member.alive(self.members_now_us)

    def _visibility(self, held: Held, since_us: int) -> tuple[int, str]:
        """Return when kombu's transport returns the message at the latest, and how, in words."""
        waits = [
            one.visibility_timeout_s
            for one in self.members
            if (one.unacked, one.index) == (held.unacked, held.index)
        ]
        wait_s = max(waits, default=_KOMBU_VISIBILITY_S)
        at_us = since_us + us_of(wait_s + _KOMBU_LOOKS_S)
        return at_us, f"after the visibility timeout ({wait_s:g} s)"


def look_for_holders(
    settings: Settings, records: Records, broker: redis.Redis, where: MessageLocations
) -> Holders:
    """Read the heartbeats at the broker and beside the records; raises redis-py's errors."""
    members_now_us, members = Fleet(records.client, settings.namespace).read()
    prefixes = {layout.prefix for _, layout in where.layouts}
    keys = {f"{settings.namespace}:heartbeats"}
    keys |= {f"{prefix}{settings.namespace}:heartbeats" for prefix in prefixes}
    owners: dict[str, Owner] = {}
    owners_now_us = 0
    for key in sorted(keys):
        owners_now_us, found = read_owners(broker, key)
        owners |= {owner.name: owner for owner in found}
    return Holders(settings.lease_s, owners_now_us, owners, members_now_us, members)
