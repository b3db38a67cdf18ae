"""A small process that owns one server and ends with its parent; it is run as a script.

The parent holds the other end of standard input. The supervisor stops the server when that end
closes, when its parent changes, or on SIGTERM. The check of the parent finds what the pipe cannot
show: a fork of the parent that keeps the pipe open. PR_SET_PDEATHSIG does not fit here, because it
fires at the end of the THREAD that started a process, and servers are started from threads. The
supervisor has one thread, so it sets that signal for its server, in case the supervisor is killed.

It adopts the server's orphans (Linux: child subreaper) and waits for them before it ends. It uses
only the standard library and runs with `python -I -S`, to start within milliseconds.
"""

import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TypedDict

__all__ = ["Order", "main"]

PARENT_CHECK_S = 0.5
ORPHAN_CHECK_S = 0.02
ORPHAN_GRACE_S = 10.0
LINUX = sys.platform == "linux"
PR_SET_PDEATHSIG, PR_SET_KEEPCAPS = 1, 8
PR_SET_CHILD_SUBREAPER, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE = 36, 47, 2
CAPABILITY_VERSION_3 = 0x20080522


class Order(TypedDict):
    """What to run and how to end it; `stop_signals` are sent in turn, `grace_s` apart."""

    argv: list[str]
    env: dict[str, str]
    cwd: str
    parent_pid: int
    stop_signals: list[int]
    grace_s: float
    uid: int | None
    gid: int | None
    capability: int | None
    keep_open: list[int]


def main(order: Order) -> int:
    """Run the server until it ends or must end; return its exit code, 128 + n for signal n."""
    wake_up = _wake_on_signals()
    if LINUX:
        _prctl(PR_SET_CHILD_SUBREAPER, 1)
    server = _start(order)
    while server.poll() is None:
        if _must_stop(order, wake_up):
            _stop(server, order)
    _await_orphans()
    return server.returncode if server.returncode >= 0 else 128 - server.returncode


def _wake_on_signals() -> int:
    """Return a descriptor that receives the number of each signal as a byte."""
    wake_up, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: None)
    return wake_up


def _start(order: Order) -> subprocess.Popen[bytes]:
    if order["capability"] is not None:
        _prctl(PR_SET_KEEPCAPS, 1)
    supervisor = os.getpid()
    return subprocess.Popen(  # noqa: S603 - the command comes from our own parent
        order["argv"],
        env=order["env"],
        cwd=order["cwd"],
        stdin=subprocess.DEVNULL,
        user=order["uid"],
        group=order["gid"],
        extra_groups=None if order["gid"] is None else [],
        pass_fds=order["keep_open"],
        preexec_fn=lambda: _bind_to_supervisor(order, supervisor),  # noqa: PLW1509 - there is one thread
    )


def _bind_to_supervisor(order: Order, supervisor: int) -> None:
    """Bind the child to the supervisor, after the change of user, which clears both settings."""
    if not LINUX:
        return
    if order["capability"] is not None:
        _hold_capability(order["capability"])
    _prctl(PR_SET_PDEATHSIG, order["stop_signals"][0])
    if os.getppid() != supervisor:
        os._exit(1)


def _hold_capability(number: int) -> None:
    """Keep one capability across exec as an ordinary user: inheritable, then ambient."""
    mask = 1 << number
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    sets = (ctypes.c_uint32 * 6)(mask, mask, mask, 0, 0, 0)
    if ctypes.CDLL(None, use_errno=True).capset(header, sets) != 0:
        raise OSError(ctypes.get_errno(), "capset")
    _prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, number)


def _prctl(option: int, *values: int) -> None:
    numbers = [ctypes.c_ulong(value) for value in (*values, 0, 0, 0)[:4]]
    if ctypes.CDLL(None, use_errno=True).prctl(option, *numbers) != 0:
        raise OSError(ctypes.get_errno(), f"prctl {option}")


def _must_stop(order: Order, wake_up: int) -> bool:
    ready, _, _ = select.select([0, wake_up], [], [], PARENT_CHECK_S)
    if wake_up in ready:
        numbers = os.read(wake_up, 64)
        if signal.SIGTERM in numbers or signal.SIGINT in numbers:
            return True
    parent_closed = 0 in ready and os.read(0, 1) == b""
    return parent_closed or os.getppid() != order["parent_pid"]


def _stop(server: subprocess.Popen[bytes], order: Order) -> None:
    for number in (*order["stop_signals"], signal.SIGKILL):
        server.send_signal(number)
        try:
            server.wait(order["grace_s"])
        except subprocess.TimeoutExpired:
            continue
        return


def _await_orphans() -> None:
    """Reap the server's orphans; kill those that still run after the grace time."""
    deadline_s = time.monotonic() + ORPHAN_GRACE_S
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            if time.monotonic() > deadline_s:
                _kill_orphans()
            time.sleep(ORPHAN_CHECK_S)


def _kill_orphans() -> None:
    listed = Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="ascii")
    for pid in listed.split():
        os.kill(int(pid), signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
