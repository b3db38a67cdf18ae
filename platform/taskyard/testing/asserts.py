"""Assertions about a yard in memory; a failure shows which jobs or dead letters it has instead."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, TypeVar

from pydantic import BaseModel

from taskyard.jobs import Category
from taskyard.jobs.letter_states import LetterStatus
from taskyard.jobs.states import State
from taskyard.testing.client import EnqueuedJob
from taskyard.testing.yard import Yard
from taskyard.wire.letter_envelope import Letter

__all__ = ["assert_completed", "assert_dead_lettered", "assert_enqueued", "refute_enqueued"]

T = TypeVar("T")

_ANY: Final[Any] = object()
# A person reads a failed assertion; a thousand lines are too many.
_SHOWN: Final = 20


def assert_enqueued(
    yard: Yard,
    job_type: str,
    *,
    payload: Any = _ANY,
    queue: str = _ANY,
    priority: int = _ANY,
    count: int | None = None,
) -> list[EnqueuedJob]:
    """Return the matching jobs enqueued since the yard was created, whatever their states now.

    A payload is compared as a whole, as JSON data; `unittest.mock.ANY` stands for a part that
    does not matter. `count` None requires at least one job. A second enqueue with the same
    idempotency key is not counted.
    """
    __tracebackhide__ = True
    wanted = {"payload": _data(payload), "queue": queue, "priority": priority}
    found = [job for job in _of_type(yard, job_type) if _matches(job, wanted)]
    what = _expectation("job", job_type, wanted, count)
    _check(found, count, what, _jobs(yard))
    return found


def refute_enqueued(yard: Yard, job_type: str, **wanted: Any) -> None:
    """Assert that no matching job was enqueued; the options are those of `assert_enqueued`."""
    __tracebackhide__ = True
    assert_enqueued(yard, job_type, count=0, **wanted)


def assert_completed(
    yard: Yard, job_type: str, *, result: Any = _ANY, count: int | None = None
) -> list[EnqueuedJob]:
    """Return the completed jobs of this type, and if `result` is given, only those with it."""
    __tracebackhide__ = True
    done = [job for job in _of_type(yard, job_type) if job.handle.state() is State.COMPLETED]
    found = [job for job in done if result is _ANY or job.handle.result() == result]
    wanted = {"result": _data(result)}
    _check(found, count, _expectation("completed job", job_type, wanted, count), _jobs(yard))
    return found


def assert_dead_lettered(
    yard: Yard,
    job_type: str,
    *,
    code: str = _ANY,
    category: Category | str = _ANY,
    count: int | None = None,
) -> list[Letter]:
    """Return the dead letters of this type that were not replayed.

    Error code and category limit them further.
    """
    __tracebackhide__ = True
    wanted = {"code": code, "category": category if category is _ANY else Category(category).value}
    found = [
        letter
        for letter in yard.letters
        if letter.job_type == job_type
        and yard.letter_status(letter) is not LetterStatus.REPLAYED
        and code in (_ANY, letter.code)
        and category in (_ANY, letter.category)
    ]
    shown = [_letter(yard, letter) for letter in yard.letters]
    there = _listed("dead letters", shown) + "\n" + _jobs(yard)
    _check(found, count, _expectation("dead letter", job_type, wanted, count), there)
    return found


def _of_type(yard: Yard, job_type: str) -> list[EnqueuedJob]:
    return [job for job in yard.enqueued if job.job_type == job_type]


def _check(found: Sequence[T], count: int | None, what: str, there: str) -> None:
    __tracebackhide__ = True
    if count is None and found:
        return
    if count is not None and len(found) == count:
        return
    raise AssertionError(f"expected {what}, found {len(found)}.\n{there}")


def _matches(job: EnqueuedJob, wanted: dict[str, Any]) -> bool:
    return all(value is _ANY or getattr(job, name) == value for name, value in wanted.items())


def _expectation(noun: str, job_type: str, wanted: dict[str, Any], count: int | None) -> str:
    number = "at least one" if count is None else "no" if count == 0 else str(count)
    facts = "".join(f", {name}={value!r}" for name, value in wanted.items() if value is not _ANY)
    return f"{number} {noun}{'' if count in (None, 1) else 's'} of type {job_type!r}{facts}"


def _data(payload: Any) -> Any:
    return payload.model_dump(mode="json") if isinstance(payload, BaseModel) else payload


def _jobs(yard: Yard) -> str:
    return _listed("jobs", [_job(job) for job in yard.enqueued])


def _job(job: EnqueuedJob) -> str:
    record = job.handle.record()
    error = record.history[-1].error if record.history else None
    return (
        f"{job.job_type}  {record.state}  queue={job.queue} priority={job.priority}  "
        f"payload={_short(job.payload)}{f'  last error: {_short(error)}' if error else ''}"
    )


def _letter(yard: Yard, letter: Letter) -> str:
    return (
        f"{letter.job_type}  {yard.letter_status(letter)}  code={letter.code} "
        f"category={letter.category}  {_short(letter.error_message)}"
    )


def _listed(noun: str, lines: Iterable[str]) -> str:
    shown = list(lines)
    if not shown:
        return f"The yard has no {noun}."
    rest = len(shown) - _SHOWN
    more = [f"... and {rest} more"] if rest > 0 else []
    return f"The yard's {noun}:\n" + "\n".join(f"  {line}" for line in shown[:_SHOWN] + more)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 120 else text[:117] + "..."  # noqa: PLR2004 - a line's width
