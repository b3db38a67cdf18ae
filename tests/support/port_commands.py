"""For a worker under test: its ports, which a test calls by remote control."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

from celery.worker.control import inspect_command

from taskyard.engine.ports import Force, HeldMessage, WayBack, WorkerPorts
from taskyard.errors import NotSupportedByPool


@inspect_command()
def taskyard_ports(state: Any, act: str = "", arguments: Any = None, **_: Any) -> dict[str, Any]:
    """Call one act in the worker's main loop."""
    try:
        return {"answer": _ACTS[act](state.app.taskyard.ports, **(arguments or {}))}
    except NotSupportedByPool as error:
        return {"refused": str(error)}


def _running(ports: WorkerPorts) -> list[dict[str, Any]]:
    return [asdict(each) for each in ports.work.running()]


def _waiting(ports: WorkerPorts) -> list[dict[str, Any]]:
    return [asdict(each) for each in ports.work.waiting()]


def _stop(ports: WorkerPorts, job_id: str, token: int, force: str) -> bool:
    return ports.attempts.stop(job_id, token, Force(force))


def _stop_taking(ports: WorkerPorts) -> None:
    ports.messages.stop_taking()


def _withdraw(ports: WorkerPorts, then: str, job_ids: list[str] | None = None) -> int:
    withdrawn = ports.messages.withdraw(job_ids)
    for held in withdrawn:
        _settle(ports, held, then)
    return len(withdrawn)


def _settle(ports: WorkerPorts, held: HeldMessage, then: str) -> None:
    give_back = partial(ports.messages.give_back, held, WayBack.AS_IT_CAME)
    match then:
        case "acknowledge":
            held.acknowledge()
        case "give back":
            give_back()
        case "hold":
            ports.messages.hold(held.message, give_back, 3600.0, on_drain=give_back)
        case "hold a moment":
            ports.messages.hold(held.message, give_back, 0.2)
        case "nothing":
            pass
        case _:
            raise ValueError(then)


def _end_holding(ports: WorkerPorts) -> None:
    ports.messages.end_holding()


_ACTS: Mapping[str, Callable[..., Any]] = {
    "running": _running,
    "waiting": _waiting,
    "stop": _stop,
    "is taking": lambda ports: ports.messages.is_taking,
    "stop taking": _stop_taking,
    "withdraw": _withdraw,
    "end holding": _end_holding,
    "processes": lambda ports: ports.processes.processes(),
    "end process": lambda ports, pid: ports.processes.end_process(pid),
}
