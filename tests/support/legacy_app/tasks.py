"""Tasks as they are found in the wild."""

from __future__ import annotations

import os
import signal
import sys
from functools import partial
from typing import Any

from celery import Task, chain, group, signals
from celery.exceptions import Ignore, Reject
from celery.worker.request import Request

from support.acts import hang_in_c
from support.legacy_app.app import TOPIC, app
from support.legacy_app.notes import await_gate, note
from support.odd_exceptions import RAISED

# Tests import this module several times, and Celery shares tasks between all apps of a process.
task = partial(app.task, shared=False)


class FlakyError(Exception):
    """Comes back once."""


class TellingRequest(Request):
    """A request class of the app's own, as Celery's guide shows it."""

    def on_timeout(self, soft: bool, timeout: float) -> None:
        super().on_timeout(soft, timeout)
        note(f"{self.id}:request_timeout", "soft" if soft else "hard")

    def on_failure(
        self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False
    ) -> None:
        super().on_failure(exc_info, send_failed_event=send_failed_event, return_ok=return_ok)
        note(f"{self.id}:request_failure")


class TellingTask(Task):
    """A task class of the app's own, with every hook."""

    Request = "support.legacy_app.tasks:TellingRequest"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        note(f"{self.request.id}:call")
        return super().__call__(*args, **kwargs)

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        note(f"{task_id}:hooks", "before_start")

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        note(f"{task_id}:hooks", "on_success")

    def on_failure(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        note(f"{task_id}:hooks", f"on_failure {type(exc).__name__}")

    def on_retry(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        note(f"{task_id}:hooks", f"on_retry {type(exc).__name__}")

    def after_return(self, status: str, *args: Any) -> None:
        note(f"{args[1]}:hooks", f"after_return {status}")


@signals.task_failure.connect
def on_task_failure(task_id: str = "", exception: Any = None, **_: Any) -> None:
    note(f"{task_id}:signals", f"failure {type(exception).__name__}")


@signals.task_retry.connect
def on_task_retry(request: Any = None, **_: Any) -> None:
    note(f"{request.id}:signals", "retry")


@signals.task_revoked.connect
def on_task_revoked(request: Any = None, expired: bool = False, **_: Any) -> None:
    note(f"{request.id}:signals", "expired" if expired else "revoked")


@task(name="legacy.add")
def add(left: int, right: int) -> int:
    return left + right


@task(name="legacy.total")
def total(numbers: list[int]) -> int:
    return sum(numbers)


@task(name="legacy.whoami", bind=True)
def whoami(self: Any) -> dict[str, Any]:
    info = self.request.delivery_info
    return {"id": self.request.id, "retries": self.request.retries, "key": info["routing_key"]}


@task(name="legacy.envelope", bind=True, max_retries=1, default_retry_delay=0)
def envelope(self: Any, again: bool = False) -> dict[str, Any]:
    """What the message says of itself, at the second try if `again`."""
    if again and self.request.retries == 0:
        raise self.retry(countdown=0.2)
    return {"eta": self.request.eta, "priority": self.request.delivery_info["priority"]}


@task(name="legacy.fail")
def fail(text: str) -> None:
    raise ValueError(text)


@task(name="legacy.told", bind=True, base=TellingTask, max_retries=2)
def told(self: Any, do: str) -> str:
    if do == "fail":
        raise KeyError("told")
    if do == "retry" and self.request.retries < 1:
        raise self.retry(exc=FlakyError("once"), countdown=0)
    return do


@task(name="legacy.overtime", base=TellingTask, time_limit=1)
def overtime() -> None:
    note("overtime:runs")
    await_gate("never")


@task(name="legacy.insist", bind=True, max_retries=2, default_retry_delay=0)
def insist(self: Any, until: int, payload: str = "") -> list[Any]:
    """Retry with other arguments until it has been tried `until` times."""
    runs = note(f"{self.request.id}:runs")
    if runs < until:
        raise self.retry(args=(until, payload + "x"), kwargs={}, exc=FlakyError(f"run {runs}"))
    return [runs, payload, self.request.retries]


@task(name="legacy.later", bind=True, max_retries=1)
def later(self: Any) -> int:
    if self.request.retries == 0:
        self.retry(countdown=2)
    return int(self.request.retries)


@task(name="legacy.much_later", bind=True, max_retries=1)
def much_later(self: Any) -> int:
    """Fail once, and again only after six seconds."""
    runs = note(f"{self.request.id}:runs")
    if runs == 1:
        self.retry(countdown=6)
    return runs


@task(name="legacy.doomed", bind=True)
def doomed(self: Any) -> None:
    note(f"{self.request.id}:runs")
    raise ValueError("doomed")


@task(name="legacy.patient", bind=True, max_retries=3)
def patient(self: Any, waits: int) -> int:
    """Retry with a wait each time, so that a message that has waited is itself retried."""
    if self.request.retries < waits:
        raise self.retry(countdown=1.2)
    return int(self.request.retries)


@task(
    name="legacy.auto", bind=True, autoretry_for=(FlakyError,), max_retries=2, retry_backoff=False,
    default_retry_delay=0,
)  # fmt: skip
def auto(self: Any, failures: int) -> int:
    if note(f"{self.request.id}:runs") <= failures:
        raise FlakyError("auto")
    return int(self.request.retries)


@task(name="legacy.elsewhere", bind=True, max_retries=1, default_retry_delay=0)
def elsewhere(self: Any) -> str:
    if self.request.retries == 0:
        raise self.retry(queue=TOPIC)
    return str(self.request.delivery_info["routing_key"])


@task(name="legacy.become", bind=True)
def become(self: Any, what: str, ends_in: str | None = None) -> Any:
    """`ends_in` is the queue of the task that has this one's id."""
    if what == "task":
        return self.replace(add.s(40, 2).set(queue=ends_in))
    if what == "chain":
        return self.replace(chain(add.s(1, 2), add.s(39).set(queue=ends_in)))
    return self.replace(group(add.s(number, number) for number in range(3)))


@task(name="legacy.ignored", ignore_result=True)
def ignored(name: str) -> str:
    note(name)
    return "nobody sees this"


@task(name="legacy.reject", bind=True)
def reject(self: Any) -> None:
    note(f"{self.request.id}:runs")
    raise Reject("no", requeue=False)


@task(name="legacy.shrug", bind=True)
def shrug(self: Any) -> None:
    note(f"{self.request.id}:runs")
    self.update_state(state="SHRUGGED", meta={"why": "because"})
    raise Ignore


@task(name="legacy.once", bind=True)
def once(self: Any) -> int:
    return note(f"{self.request.id}:runs")


@task(name="legacy.gated", bind=True)
def gated(self: Any, gate: str) -> int:
    runs = note(f"{self.request.id}:runs")
    await_gate(gate)
    return runs


@task(name="legacy.hang", bind=True)
def hang(self: Any) -> int:
    """Hang at the first run, in a call that no exception reaches."""
    runs = note(f"{self.request.id}:runs")
    if runs == 1:
        hang_in_c()
    return runs


@task(name="legacy.crash", bind=True)
def crash(self: Any, times: int) -> int:
    runs = note(f"{self.request.id}:runs")
    if runs <= times:
        os.kill(os.getpid(), signal.SIGKILL)
    return runs


@task(name="legacy.leave", bind=True)
def leave(self: Any) -> None:
    note(f"{self.request.id}:runs")
    sys.exit(3)


@task(name="legacy.early", bind=True, acks_late=False)
def early(self: Any) -> int:
    return note(f"{self.request.id}:runs")


@task(name="legacy.watched", bind=True)
def watched(self: Any, text: str = "") -> int:
    return note(f"{self.request.id}:runs")


@task(name="legacy.left_alone", bind=True)
def left_alone(self: Any) -> int:
    return note(f"{self.request.id}:runs")


@task(name="legacy.in_yaml", bind=True, serializer="yaml")
def in_yaml(self: Any, value: Any) -> str:
    note(f"{self.request.id}:runs")
    return type(value).__name__


@task(name="legacy.limited", rate_limit="600/m")
def limited(number: int) -> int:
    return number


@task(name="legacy.soft", soft_time_limit=1)
def soft() -> str:
    await_gate("never")
    return "too late"


@task(name="legacy.tick", bind=True)
def tick(self: Any) -> None:
    note("ticks", self.request.id)


@task(name="legacy.errback")
def errback(request: Any, exc: Any, traceback: Any) -> None:
    note(f"{request.id}:errback", type(exc).__name__)


@task(name="legacy.callback", bind=True)
def callback(self: Any, result: Any, name: str) -> None:
    note(name, str(result))


@task(name="legacy.raises", bind=True, base=TellingTask, max_retries=0)
def raises(self: Any, name: str) -> None:
    note(f"{self.request.id}:runs")
    raise RAISED[name]()


@task(name="legacy.raises_watched", bind=True, max_retries=0)
def raises_watched(self: Any, name: str) -> None:
    note(f"{self.request.id}:runs")
    raise RAISED[name]()


@task(
    name="legacy.raises_auto", bind=True, autoretry_for=(BaseException,), max_retries=2,
    retry_backoff=False, default_retry_delay=0,
)  # fmt: skip
def raises_auto(self: Any, name: str, times: int) -> str:
    """Fail so often; a name that is none of them waits at a gate of that name."""
    if note(f"{self.request.id}:runs") > times:
        return "sound"
    if name in RAISED:
        raise RAISED[name]()
    await_gate(name)
    return "waited"


class StartsBadly(Task):
    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        note(f"{task_id}:runs")
        raise RAISED[args[0]]() if args[0] in RAISED else ValueError(args[0])


@task(name="legacy.starts_badly", base=StartsBadly)
def starts_badly(name: str) -> str:
    return name


@task(name="legacy.everywhere", bind=True)
def everywhere(self: Any, do: str = "") -> str:
    """What each worker is to do by itself."""
    note(f"{self.request.id}:runs", self.request.hostname)
    if do == "fail":
        raise ValueError("on this worker")
    return "done"


@task(name="legacy.mark")
def mark(name: str) -> str:
    """Note each run under one name, so that a test sees those of thousands of messages at once."""
    note("marks", name)
    return name
