"""The storms: each a sequence of faults, drawn from the seed, while jobs come in."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf
from typing import Final

from chaos.cluster import await_gone, send
from chaos.disks import disk_alarm, fill
from chaos.faults import Faults
from chaos.setups import SETUPS

__all__ = ["STORMS", "Storm"]

_PLAIN, _FLAKY, _DOOMED, _SLOW, _EARLY = "plain", "flaky", "doomed", "slow", "early"
_KINDS: Final = (_PLAIN,) * 18 + (_FLAKY, _DOOMED)
# So that operators meet attempts that run, before their effect and after it.
_OPERATED_KINDS: Final = (_PLAIN,) * 36 + (_FLAKY, _DOOMED) * 3 + (_SLOW, _EARLY) * 2


_ALL: Final = tuple(SETUPS)
_NATIVE: Final = tuple(name for name, setup in SETUPS.items() if not setup.app)
_RABBIT: Final = tuple(name for name, setup in SETUPS.items() if setup.broker == "rabbitmq")


@dataclass(frozen=True, slots=True)
class Storm:
    """`inject` is called again and again with drawn waits between; `setups` are those it is for.

    `wait_s` is for a short run; a long one stretches it, so that its faults last to its end.
    With `looks` it stops now and then and compares `taskyard reconcile` with what it left behind.
    `small_disk` names the server whose data lie on a file system that can be filled. `operated`:
    operators act on the jobs meanwhile, and the client waits for replies. `flips`: switches are
    turned on and off meanwhile. `forgets`: Redis is flushed, so that the effects alone say how a
    job ended. `kinds` are those of the jobs, each drawn as often as it stands there; `poison` says
    whether some kill their process besides. `rate` is the most jobs a second, for jobs that take
    longer than those for which the set-ups have theirs.
    """

    inject: Callable[[Faults], None]
    wait_s: tuple[float, float]
    setups: tuple[str, ...] = _NATIVE
    proxied: bool = False
    shifts_s: tuple[float, float] = (0.0, 0.0)
    small_disk: str = ""
    looks: bool = False
    operated: bool = False
    flips: bool = False
    forgets: bool = False
    poison: bool = True
    rate: float = inf
    kinds: tuple[str, ...] = _KINDS


def _kill_child(faults: Faults) -> None:
    children = [pid for worker in faults.cluster.workers for pid in worker.children()]
    if children:
        send([faults.rng.choice(children)], signal.SIGKILL)
        faults.over("a child killed")


def _kill_worker(faults: Faults) -> None:
    """One of them or all at once, and a supervisor that starts them again."""
    workers = faults.cluster.workers
    killed = faults.rng.sample(workers, faults.rng.randint(1, len(workers)))
    faults.kill(killed)
    faults.cluster.mend()
    faults.over(f"{len(killed)} workers killed", all_dead=len(killed) == len(workers))


def _kill_daemon(faults: Faults) -> None:
    daemon = faults.rng.choice(faults.cluster.daemons)
    faults.cluster.supervisor.kill([daemon])
    faults.cluster.mend()
    faults.over(f"{daemon.name} killed")


def _terminate_worker(faults: Faults) -> None:
    worker = faults.rng.choice(faults.cluster.workers)
    faults.cluster.supervisor.terminate(worker)
    faults.cluster.mend()
    faults.over(f"{worker.name} terminated")


def _restart(server: str) -> Callable[[Faults], None]:
    def inject(faults: Faults) -> None:
        pids = faults.cluster.pids(server)
        send(pids, signal.SIGKILL)
        await_gone(pids)
        faults.hold(0.0, 2.0)
        faults.cluster.start(server)
        faults.cluster.mend()
        faults.over(f"{server} killed and started")

    return inject


def _freeze(server: str) -> Callable[[Faults], None]:
    def inject(faults: Faults) -> None:
        pids = faults.cluster.pids(server)
        send(pids, signal.SIGSTOP)
        try:
            # Longer than the clients' patience of five seconds, sometimes.
            faults.hold(1.0, 8.0)
        finally:
            send(pids, signal.SIGCONT)
        faults.over(f"{server} paused")

    return inject


def _cut(faults: Faults) -> None:
    name = faults.rng.choice(sorted(faults.cluster.proxies))
    proxy = faults.cluster.proxies[name]
    match faults.rng.choice(["cut", "delay", "swallow"]):
        case "cut":
            faults.over(f"{proxy.cut()} connections to {name} cut")
        case "delay":
            proxy.delay_s = faults.rng.uniform(0.02, 0.2)
            faults.hold(1.0, 3.0)
            proxy.delay_s = 0.0
            faults.over(f"{name} delayed")
        case _:
            proxy.swallow()
            faults.hold(1.0, 7.0)
            proxy.flow()
            faults.over(f"{name} mute")


def _wrong_clocks(faults: Faults) -> None:
    """Nothing more to do: one worker is an hour ahead, the other one behind, all the time."""
    faults.over("clocks wrong")


def _any_process(faults: Faults) -> None:
    """Kill or end any process of the cluster, clients and operators excepted.

    A daemon or a worker that finds no server while it starts ends by itself, and says so.
    """
    faults.cluster.supervisor.await_ready()
    servers = [_restart("redis"), _restart("postgres")]
    if faults.cluster.rabbitmq is not None:
        servers.append(_restart("rabbitmq"))
    workers = [_kill_child, _kill_worker, _terminate_worker]
    faults.rng.choice([*workers, _kill_daemon, _kill_daemon, *servers])(faults)


def _forget(faults: Faults) -> None:
    """Flush Redis, restart it, or kill workers or a daemon; then long enough for a relay."""
    faults.rng.choice([_flush, _flush, _restart("redis"), _kill_worker, _kill_daemon])(faults)


def _flush(faults: Faults) -> None:
    faults.cluster.records.client.flushall()
    faults.over("redis flushed")


STORMS: Final[Mapping[str, Storm]] = {
    "kill children": Storm(_kill_child, (0.3, 1.0), setups=_ALL),
    "kill workers": Storm(_kill_worker, (1.0, 3.0), setups=_ALL, looks=True),
    "kill mirror and relay": Storm(_kill_daemon, (1.0, 2.5)),
    "restart Redis": Storm(_restart("redis"), (0.5, 2.5), setups=_ALL),
    "pause Redis": Storm(_freeze("redis"), (0.5, 3.0)),
    "restart RabbitMQ": Storm(_restart("rabbitmq"), (1.0, 4.0), setups=_RABBIT),
    "pause RabbitMQ": Storm(_freeze("rabbitmq"), (1.0, 3.0), setups=("rabbitmq",)),
    "restart Postgres": Storm(_restart("postgres"), (0.5, 2.5)),
    "pause Postgres": Storm(_freeze("postgres"), (1.0, 3.0)),
    "cut and delay connections": Storm(_cut, (0.5, 1.5), setups=_ALL, proxied=True),
    "fill the disk of Redis": Storm(fill("redis"), (1.0, 3.0), small_disk="redis"),
    "fill the disk of Postgres": Storm(fill("postgres"), (1.0, 3.0), small_disk="postgres"),
    "fill the disk of RabbitMQ": Storm(disk_alarm, (1.0, 3.0), setups=("rabbitmq",)),
    "operators and kills": Storm(
        _any_process,
        (0.5, 2.0),
        # What kombu's pop loses has no end that an operator's request could be compared with.
        setups=tuple(name for name in _ALL if not SETUPS[name].loses_pops),
        operated=True,
        flips=True,
        kinds=_OPERATED_KINDS,
        rate=50.0,
    ),
    "switches and flushes": Storm(
        _forget,
        # More than the 5 s within which a switch must be in force again.
        (6.0, 8.0),
        setups=("rabbitmq",),
        flips=True,
        forgets=True,
        poison=False,
        rate=50.0,
        kinds=(_PLAIN,) * 18 + (_FLAKY,),
    ),
    "wrong clocks": Storm(_wrong_clocks, (1.0, 5.0), shifts_s=(3600.0, -3600.0)),
}
