"""Whatever lies in the letters' queue becomes a row, and never another job's."""

from typing import Any

import pytest

from support.hostile_letters import NOW, changed_letters, drops
from support.letters import make_delivery, make_letter
from taskyard.database.postgres_errors import REFUSALS
from taskyard.mirror.letter_rows import junk_row, row, salvaged_row
from taskyard.mirror.rabbit_drops import is_drop
from taskyard.mirror.read_delivery import Readable, Unreadable, read
from taskyard.wire import letter_id


@pytest.mark.parametrize("deliveries", [drops, changed_letters])
def test_reading_what_anybody_may_have_put_there_never_raises(deliveries: Any) -> None:
    for delivery in deliveries():
        item = read(delivery)
        match item:
            case Readable():
                # Of a drop the mirror makes the id, which no job's letter can have.
                own = letter_id(item.letter.job_id, item.letter.epoch, item.letter.generation)
                assert (str(item.id) == own) is not is_drop(delivery)
                assert _stored(item)
            case Unreadable():
                junk_row(item, NOW)


def _stored(item: Readable) -> dict[str, Any]:
    """As the mirror does it: what cannot be a whole row is salvaged, and that never fails."""
    salvaged = salvaged_row(item, "why")
    try:
        return row(item)
    except REFUSALS:
        return salvaged


def test_a_letter_under_another_jobs_id_is_kept_as_what_it_is() -> None:
    mine, theirs = make_letter(), make_letter()
    forged = mine.model_copy(update={"letter_id": theirs.letter_id})
    item = read(make_delivery(forged))
    assert isinstance(item, Unreadable)
    assert f"expected that of its job, {mine.letter_id}, got {theirs.letter_id}" in item.why
