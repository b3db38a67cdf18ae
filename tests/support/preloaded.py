"""Python programs in forks of one process that has the libraries loaded, for `python -m MODULE`.

Starting Python and importing Celery, SQLAlchemy and the command line takes about a second of a
core, a fork some hundredths. A fork runs the same module with arguments, environment, folder and
files of its own, so it behaves as a new process would; what depends on the interpreter's own start
(locale, `-X` options, laziness of imports) has to start one.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import IO, Any, NoReturn

__all__ = ["Forked", "Running", "can_fork", "launch", "start"]

LIBRARIES = (
    "alembic.command",
    "celery.apps.worker",
    "celery.bin.celery",
    "celery.concurrency.prefork",
    "celery.fixups",
    "celery.worker.consumer",
    "kombu.transport.pyamqp",
    "kombu.transport.redis",
    "psycopg2",
    "redis.asyncio",
    "rich.table",
    "sqlalchemy.dialects.postgresql.psycopg2",
    "typer",
)
# Ours, but for what a test may change by importing a module of its own first.
OURS = (
    "taskyard.ops.cli.root_command",
    "taskyard.control",
    "taskyard.engine.consumer",
    "taskyard.install",
)
# Pools for which Celery patches the standard library before anything else is imported.
PATCHING = {"gevent", "eventlet", "--pool=gevent", "--pool=eventlet"}
MAX_REQUEST = 1 << 20


class Forked:
    """A running program; `poll`, `wait` and `pid` are as of `subprocess.Popen`."""

    def __init__(self, connection: socket.socket, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._connection = connection

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal; None while it runs."""
        return self._ended(0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end; raises `subprocess.TimeoutExpired`."""
        code = self._ended(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
        return code

    def send_signal(self, signum: int) -> None:
        """Send a signal unless the process has ended."""
        if self.poll() is None:
            os.kill(self.pid, signum)

    def kill(self) -> None:
        """Send SIGKILL unless the process has ended."""
        self.send_signal(signal.SIGKILL)

    def _ended(self, within_s: float | None) -> int | None:
        if self.returncode is None and select.select([self._connection], [], [], within_s)[0]:
            answer = self._connection.recv(64)
            self._connection.close()
            if not answer:
                raise RuntimeError(f"the parent of process {self.pid} died without an answer")
            self.returncode = int(answer)
        return self.returncode


def can_fork(environment: Mapping[str, str]) -> bool:
    """Whether `environment` differs from this process' only in what a program reads while it runs.

    A fork cannot have another locale, another Python path before its first import, or other options
    of the interpreter.
    """
    read_at_start = ("LANG", "LC_", "MALLOC_", "PYTHON")
    return all(
        os.environ.get(name) == value
        for name, value in environment.items()
        if name.startswith(read_at_start) and name != "PYTHONPATH"
    )


def start(
    module: str,
    words: Sequence[str],
    *,
    environment: Mapping[str, str],
    folder: Path,
    files: tuple[int, int, int],
    new_session: bool = False,
) -> Forked:
    """Run `python -m module words` in a fork; `files` are its standard input, output and error."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.connect(_server())
    request = {
        "module": module,
        "words": list(words),
        "environment": dict(environment),
        "folder": str(folder),
        "new_session": new_session,
    }
    socket.send_fds(connection, [json.dumps(request).encode()], list(files))
    return Forked(connection, int(connection.recv(64)))


Running = subprocess.Popen[bytes] | Forked


def launch(
    module: str,
    words: Sequence[str],
    *,
    environment: Mapping[str, str],
    folder: Path,
    log: IO[bytes],
) -> Running:
    """Start `python -m module words` in a session of its own that writes to `log`.

    What patches the standard library before the first import is a new process.
    """
    if can_fork(environment) and not PATCHING.intersection(words):
        with Path(os.devnull).open("rb") as nothing:
            files = (nothing.fileno(), log.fileno(), log.fileno())
            return start(
                module, words, environment=environment, folder=folder, files=files, new_session=True
            )
    return subprocess.Popen(
        [sys.executable, "-m", module, *words],
        env=dict(environment),
        cwd=folder,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )


@cache
def _server() -> str:
    """Start the process that forks, once; it ends with this one. Return its address."""
    address = Path(tempfile.mkdtemp(prefix="preloaded-")) / "address"
    started = subprocess.Popen(
        [sys.executable, "-m", "support.preloaded", str(address)],
        env={**_without_settings(), "PYTHONPATH": str(Path(__file__).parents[1])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert started.stdout is not None
    assert started.stdout.readline() == b"ready\n", "the process that forks did not start"
    atexit.register(_end, started, address)
    return str(address)


def _end(started: subprocess.Popen[bytes], address: Path) -> None:
    assert started.stdin is not None
    started.stdin.close()
    started.wait(10)
    address.unlink(missing_ok=True)
    address.parent.rmdir()


def _without_settings() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name[:9] != "TASKYARD_"}


# -- the process that forks ------------------------------------------------------------------------


def _serve(address: str) -> None:
    for module in (*LIBRARIES, *OURS):
        import_module(module)
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the attendants' exit codes matter to none
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(address)
        listener.listen()
        os.write(1, b"ready\n")
        while True:
            ready, _, _ = select.select([0, listener.fileno()], [], [])
            if 0 in ready:  # nothing is ever written: whoever started this has ended
                return
            connection, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                _attend(connection)
            connection.close()


def _attend(connection: socket.socket) -> NoReturn:
    """Start one program, send its process id, wait for it, send its exit code."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    text, files, _, _ = socket.recv_fds(connection, MAX_REQUEST, 3)
    request = json.loads(text)
    told, tells = os.pipe()
    pid = os.fork()
    if pid == 0:
        connection.close()
        os.close(told)
        if request["new_session"]:
            os.setsid()
        os.close(tells)
        _become(request, files)
    for file in (*files, tells):
        os.close(file)
    # Whoever hears the id may kill the session at once, so there must be one.
    os.read(told, 1)
    os.close(told)
    connection.send(str(pid).encode())
    _, status = os.waitpid(pid, 0)
    try:
        connection.send(str(os.waitstatus_to_exitcode(status)).encode())
    except BrokenPipeError:
        os._exit(1)  # the test does not wait for it any more
    os._exit(0)


def _become(request: Mapping[str, Any], files: Sequence[int]) -> NoReturn:
    code = 1
    try:
        _prepare(request, files)
        code = _run(request["module"])
        threading._shutdown()  # type: ignore[attr-defined]  # as at Python's own end
        atexit._run_exitfuncs()  # the same
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    finally:
        os._exit(code)


def _prepare(request: Mapping[str, Any], files: Sequence[int]) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    atexit._clear()
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - the process' own
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(  # noqa: SIM115
        2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False
    )
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    own = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.path[:] = [request["folder"], *own, *(path for path in sys.path if path not in own)]
    sys.argv = [request["module"], *request["words"]]


def _run(module: str) -> int:
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        sys.stderr.write(f"{end.code}\n")
        return 1
    except BaseException:  # noqa: BLE001 - as the interpreter does it
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    _serve(sys.argv[1])
