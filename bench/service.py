"""An async service: a thousand calls at once, near Redis and over a network; results awaited."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, Final
from urllib.parse import urlsplit

from bench.apps.taskyard_async import Awaited, Enqueued
from bench.contenders import TASKYARD
from bench.processes import ROOT, Bench
from bench.spread import spread
from bench.suite import Figures, Stage

__all__ = ["service"]

_CALLS: Final = 1_000
_ONE_WAY_MS: Final = 2
_WITHIN_S: Final = 300.0


def service(stage: Stage) -> Figures:
    """`aenqueue` and `aresult`, a thousand at once."""
    bench, plan = stage.bench, stage.plan
    url = bench.redis_of(TASKYARD)
    near = Enqueued(**_ask(bench, url, "enqueue", plan.service_rounds, _CALLS))
    with _network(url) as far_url:
        far = Enqueued(**_ask(bench, far_url, "enqueue", plan.service_rounds, _CALLS))
    awaited = Awaited(**_ask(bench, url, "await", _CALLS, plan.awaited_s))
    bench.empty()
    return {
        **_figures("aenqueue", far),
        **_figures("aenqueue_loopback", near),
        "awaited_commands_per_s": round(awaited.commands_per_s, 1),
        "service": {
            "calls": _CALLS,
            "one_way_ms": _ONE_WAY_MS,
            "network": _steady(far),
            "loopback": _steady(near),
            "awaited": {name: round(value, 2) for name, value in asdict(awaited).items()},
        },
    }


def _figures(name: str, found: Enqueued) -> Figures:
    return {
        f"{name}_per_s": round(statistics.median(found.per_s)),
        f"{name}_per_s_turns": asdict(spread(found.per_s)),
        f"{name}_p99_ms": round(_p99(found.call_ms), 1),
    }


def _steady(found: Enqueued) -> Figures:
    return {
        "round_trip_ms": round(found.round_trip_ms, 2),
        "cpu_us": round(found.cpu_us),
        "steady_per_s": round(found.steady_per_s),
        "steady_p99_ms": round(_p99(found.steady_call_ms), 1),
    }


def _p99(values: list[float]) -> float:
    return sorted(values)[int(len(values) * 0.99)]


def _ask(bench: Bench, url: str, *words: object) -> Mapping[str, Any]:
    """What the service of this Redis measures, in a process of its own, with an empty server."""
    bench.empty()
    done = subprocess.run(  # noqa: S603 - our own list
        [sys.executable, "-m", "bench.apps.taskyard_async", *map(str, words)],
        env={
            **bench.environment(TASKYARD),
            "TASKYARD_REDIS_URL": url,
            "TASKYARD_BROKER_URL": url,
        },
        cwd=bench.folder,
        check=True,
        stdout=subprocess.PIPE,
        timeout=_WITHIN_S,
    )
    found: Mapping[str, Any] = json.loads(done.stdout)
    return found


@contextmanager
def _network(url: str) -> Iterator[str]:
    """The same server, some milliseconds farther away."""
    parts = urlsplit(url)
    line = subprocess.Popen(  # noqa: S603 - our own list
        [
            sys.executable,
            "-m",
            "bench.apps.delay_line",
            str(parts.hostname),
            str(parts.port),
            str(_ONE_WAY_MS),
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert line.stdout is not None  # noqa: S101 - it is a pipe
    try:
        port = int(line.stdout.readline())
        credentials = parts.netloc.rpartition("@")[0]
        at = f"{credentials}@" if credentials else ""
        yield parts._replace(netloc=f"{at}127.0.0.1:{port}").geturl()
    finally:
        line.kill()
        line.wait()
        line.stdout.close()
