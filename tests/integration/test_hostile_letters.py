"""The mirror stores whatever lies in the letters' queue, and goes on."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import func, select

from support.dated import dated
from support.hostile_letters import changed_letters, drops
from support.letters import make_delivery, make_letter
from taskyard.database.tables import LETTERS
from taskyard.mirror.store_letters import store_letters

# Mirror, relay, reconcile and operators: by the role that they have in production.
AS_RUNTIME = True


@pytest.mark.parametrize("deliveries", [drops, changed_letters])
def test_junk_in_any_place_of_a_letter_is_a_row(database_url: str, deliveries: Any) -> None:
    sound = make_letter()
    with dated(database_url) as database, database.begin() as connection:
        store_letters(connection, [*deliveries(), make_delivery(sound)])
        query = select(func.count()).select_from(LETTERS)
        assert connection.scalar(query) > 1
        own = query.where(LETTERS.c.original_request_id == sound.job_id)
        assert connection.scalar(own) == 1
