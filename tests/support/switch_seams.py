"""A process that turns or keeps switches, and dies of SIGKILL at one seam.

Run as a program: SEAM and the words of a call in `ACTS`.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Final, NoReturn

from support.switched import ADMIN, WHY
from taskyard import audit
from taskyard.control import Control, turn_switch
from taskyard.database import opened
from taskyard.records import Records
from taskyard.relay import SwitchKeeper, keep_switches
from taskyard.settings import load
from taskyard.store import connect
from taskyard.switches import RedisSwitches

__all__ = ["ACTS", "SEAMS"]


def _die(*_: Any, **__: Any) -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("still alive")


def _before(owner: Any, name: str) -> None:
    setattr(owner, name, _die)


def _after(owner: Any, name: str) -> None:
    original: Callable[..., Any] = getattr(owner, name)

    def call(*arguments: Any, **keywords: Any) -> NoReturn:
        original(*arguments, **keywords)
        _die()

    setattr(owner, name, call)


SEAMS: Final[Mapping[str, Callable[[], None]]] = {
    "before the commit": lambda: _after(turn_switch, "store"),
    "after the commit": lambda: _before(turn_switch, "carry_over"),
    "before Redis": lambda: _before(RedisSwitches, "put"),
    "after Redis": lambda: _after(RedisSwitches, "put"),
    "before the answer's commit": lambda: _after(audit, "answer"),
    "before the end's commit": lambda: _after(keep_switches, "store"),
    "after the end's commit": lambda: _before(keep_switches, "carry_over"),
}
ACTS: Final[Mapping[str, Callable[[Control, SwitchKeeper], object]]] = {
    "kill": lambda control, _: control.kill("all", reason=WHY, hold=True),
    "lift": lambda control, _: control.lift("all", reason=WHY),
    "pause": lambda control, _: control.pause_queue(
        "exec", reason=WHY, lasts=timedelta(milliseconds=1)
    ),
    "keep": lambda _, keeper: keeper.run_once(),
}


def main(seam: str, act: str) -> None:
    """Cut at the seam, then act."""
    settings = load().settings
    SEAMS[seam]()
    client = connect(settings.need_redis_url())
    switches = RedisSwitches(client, settings.namespace)
    with opened(settings.need_database_url()) as engine:
        control = Control(engine, Records(client, settings), ADMIN, switches=switches)
        ACTS[act](control, SwitchKeeper(engine, switches))


if __name__ == "__main__":
    main(*sys.argv[1:])
