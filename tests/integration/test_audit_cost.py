"""The measurement of what the sealer costs operators, in its short form."""

from __future__ import annotations

import pytest
from bench.deadline import Deadline
from bench.sealing import sealing_cost

from servers import Servers
from support.databases import new_database
from taskyard.clock import SYSTEM_CLOCK


@pytest.mark.slow  # turns have to be longer than the sealer's interval
def test_verbs_beside_the_sealer_are_about_as_quick_and_their_rows_are_sealed(
    servers: Servers,
) -> None:
    deadline = Deadline(120, SYSTEM_CLOCK)

    found = sealing_cost(new_database(servers), turns=3, turn_s=6, deadline=deadline)

    assert found.ratio.turns == 3
    # The promise is 0.95 of 20 turns on a machine without other work.
    assert found.ratio.median > 0.7
    assert found.seals >= 3
    assert found.rows_sealed > 0
