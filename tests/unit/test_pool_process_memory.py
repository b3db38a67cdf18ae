"""The memory of a process that died, read from a /proc of the test's own."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from taskyard.clock import SYSTEM_CLOCK
from taskyard.engine.pool_process_memory import ProcessMemory, oom_kills
from taskyard.testing.clock import YardClock

V2 = ("0::/pod/worker\n", "sys/fs/cgroup/pod/worker/memory.events")
V2_IN_ITS_CONTAINER = ("0::/pod/worker\n", "sys/fs/cgroup/memory.events")
V1 = ("9:memory:/pod\n3:cpu:/\n0::/\n", "sys/fs/cgroup/memory/pod/memory.oom_control")
V1_IN_ITS_CONTAINER = ("9:memory:/pod\n", "sys/fs/cgroup/memory/memory.oom_control")


class Machine:
    """The files that the kernel would write."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.clock = YardClock(datetime.now(UTC))
        self.memory = ProcessMemory(self.clock, root)

    def holds(self, pid: int, mib: int) -> None:
        lines = ["Name:\tcelery", "VmHWM:\t9999999 kB", f"VmRSS:\t{mib * 1024:>8} kB", ""]
        self.write(f"proc/{pid}/status", "\n".join(lines))

    def has_ended(self, pid: int) -> None:
        self.write(f"proc/{pid}/status", "Name:\tcelery\nState:\tZ (zombie)\n")

    def has_killed(self, times: int, group: tuple[str, str] = V2) -> None:
        self.write("proc/self/cgroup", group[0])
        self.write(group[1], f"oom 9\noom_kill {times}\noom_group_kill 0\n")

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_the_last_look_at_a_living_process_is_what_counts(machine: Machine) -> None:
    machine.holds(7, mib=100)
    machine.memory.look({"job": 7})
    machine.holds(7, mib=1843)
    machine.memory.look({"job": 7})
    machine.has_ended(7)
    machine.memory.look({"job": 7})
    machine.clock.advance(timedelta(seconds=0.5))
    words = machine.memory.last_words("job")
    assert words == "; it used 1,843 MiB of memory when last measured, 0.5 s before"


def test_each_job_has_the_words_of_its_own_process_once(machine: Machine) -> None:
    machine.holds(7, mib=1)
    machine.holds(8, mib=2)
    machine.memory.look({"one": 7, "two": 8})
    assert " 2 MiB" in machine.memory.last_words("two")
    assert machine.memory.last_words("two") == ""
    assert " 1 MiB" in machine.memory.last_words("one")


def test_jobs_that_ended_are_forgotten(machine: Machine) -> None:
    machine.holds(7, mib=1)
    machine.memory.look({"one": 7})
    machine.memory.look({})
    assert machine.memory.last_words("one") == ""


def test_where_nothing_was_seen_nothing_is_said(machine: Machine) -> None:
    machine.memory.look({"job": 7})
    assert machine.memory.last_words("job") == ""


@pytest.mark.parametrize("group", [V2, V2_IN_ITS_CONTAINER, V1, V1_IN_ITS_CONTAINER])
def test_a_kill_for_want_of_memory_while_the_job_ran_is_told(
    machine: Machine, group: tuple[str, str]
) -> None:
    machine.has_killed(3, group)
    machine.holds(7, mib=1)
    machine.memory.look({"job": 7})
    machine.has_killed(4, group)
    machine.memory.look({"job": 7})
    assert machine.memory.last_words("job").endswith(
        "the kernel killed processes of its memory group (OOM)"
    )


def test_a_kill_before_the_job_began_is_not(machine: Machine) -> None:
    machine.has_killed(3)
    machine.holds(7, mib=1)
    machine.memory.look({"job": 7})
    assert "OOM" not in machine.memory.last_words("job")


def test_a_machine_without_memory_groups_tells_none(tmp_path: Path) -> None:
    assert oom_kills(tmp_path) is None


def test_this_process_is_found_on_a_real_machine() -> None:
    memory = ProcessMemory(SYSTEM_CLOCK)
    memory.look({"job": os.getpid()})
    words = memory.last_words("job")
    held = int(words.split(" MiB")[0].rsplit(" ", 1)[1].replace(",", ""))
    assert 10 < held < 20_000
