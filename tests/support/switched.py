"""An operator who turns switches, a Redis of the test's own, and the relay's keeper."""

from __future__ import annotations

import uuid
from typing import Any

from sqlalchemy import Engine, select

from support.yard import fresh_settings
from taskyard.access import Identity, Role
from taskyard.clock import SYSTEM_CLOCK, Clock
from taskyard.control import Control
from taskyard.database.tables import AUDIT
from taskyard.records import Records
from taskyard.relay import SwitchKeeper
from taskyard.store import connect
from taskyard.switches import RedisSwitches, SwitchField, SwitchState
from taskyard.switches.postgres_switches import read_rows

__all__ = ["ADMIN", "ALL", "EXEC", "OPS", "WHY", "SwitchHarness"]

ADMIN = Identity("ada@example.com", via="token:0123456789ab", role=Role.ADMIN)
OPS = Identity("ops@example.com", via="token:ba9876543210", role=Role.OPERATOR)
WHY = "The provider is down, incident 4711"
EXEC = SwitchField.pause("exec")
ALL = SwitchField.kill("all")


class SwitchHarness:
    """Both stores of switches, and who turns, keeps and reads them."""

    def __init__(
        self, redis_url: str, database: Engine, clock: Clock = SYSTEM_CLOCK, namespace: str = ""
    ) -> None:
        changes = {"namespace": namespace} if namespace else {}
        self.settings = fresh_settings(redis_url, **changes)
        self.database = database
        self.client = connect(redis_url, retries=0, timeout_s=1)
        self.switches = RedisSwitches(self.client, self.settings.namespace)
        self.keeper = SwitchKeeper(database, self.switches, clock)

    def control(self, identity: Identity = ADMIN) -> Control:
        records = Records(self.client, self.settings)
        return Control(self.database, records, identity, switches=self.switches)

    def in_redis(self) -> dict[SwitchField, SwitchState]:
        return dict(self.switches.read().states)

    def in_postgres(self) -> dict[SwitchField, SwitchState]:
        with self.database.connect() as connection:
            return {field: row.state for field, row in read_rows(connection).items()}

    def audited(self, request_id: uuid.UUID | str) -> list[dict[str, Any]]:
        query = select(AUDIT).where(AUDIT.c.request_id == uuid.UUID(str(request_id)))
        with self.database.connect() as connection:
            found = connection.execute(query.order_by(AUDIT.c.id)).mappings()
            return [dict(row) for row in found]

    def outcomes(self, request_id: uuid.UUID | str) -> list[str]:
        return [str(row["outcome"]) for row in self.audited(request_id)]

    def last_audited(self) -> dict[str, Any]:
        with self.database.connect() as connection:
            query = select(AUDIT).order_by(AUDIT.c.id.desc()).limit(1)
            return dict(connection.execute(query).mappings().one())
