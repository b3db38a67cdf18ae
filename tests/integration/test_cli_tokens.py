"""`taskyard tokens` and `users`, as a person at a shell and as a script use them."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from servers import Servers
from support.shell import Shell, connected_shell
from taskyard.access import Token
from taskyard.broker.redis_keys import PLAIN
from taskyard.clock import SYSTEM_CLOCK, to_us
from taskyard.install import AnnouncedQueue, AnnouncedQueues
from taskyard.ops.cli.commands import COMMANDS
from taskyard.ops.cli.lazy_commands import Command, load
from taskyard.settings import load as load_settings
from taskyard.store import connect

# Mirror, relay, reconcile and operators: by the role that they have in production.
AS_RUNTIME = True

WHY = ("--reason", "Ada joined the payments team, ticket 12345")
FORM = re.compile(r"ty_[0-9a-f]{12}_[\w-]{43}")


@pytest.fixture
def admin(tmp_path: Path, servers: Servers, database_url: str) -> Shell:
    """On a machine whose users are trusted."""
    return connected_shell(tmp_path, servers, database_url, TASKYARD_TRUST_LOCAL="1")


@pytest.fixture
def name() -> str:
    return f"ada-{uuid.uuid4().hex[:8]}@example.com"


@pytest.fixture
def app_queue(admin: Shell) -> Iterator[str]:
    """A queue that a worker of an installed app has announced."""
    settings = load_settings(admin.variables).settings
    with connect(settings.need_redis_url()) as client:
        places = AnnouncedQueues(client, settings.namespace)
        places.report([AnnouncedQueue("shop", "of-its-broker", PLAIN, to_us(SYSTEM_CLOCK.now()))])
        yield "shop"
        client.delete(places.key)


def made(admin: Shell, name: str, *words: str) -> str:
    ran = admin.run("tokens", "create", name, *WHY, *(words or ("--role", "operator")))
    assert ran.code == 0, ran.err
    return ran.out.strip()


def test_a_token_stands_alone_on_standard_output_and_once(admin: Shell, name: str) -> None:
    ran = admin.run("tokens", "create", name, "--role", "operator", "--queues", "exec", *WHY)
    assert FORM.fullmatch(ran.out.removesuffix("\n"))
    token = Token.parse(ran.out)
    assert token.secret not in ran.err
    assert (
        f"with the token {token.id} its bearer acts as {name}, role operator, bounds: queues exec"
        in ran.err
    )
    assert "shown only now" in ran.err
    listed = admin.run("tokens", "list", "--all")
    assert token.id in listed.out
    assert token.secret not in listed.out


def test_a_token_in_the_environment_is_who_acts(admin: Shell, shell: Shell, name: str) -> None:
    viewer = made(admin, name, "--role", "viewer")
    ran = shell.run("tokens", "create", "x@example.com", "--role", "viewer", *WHY,
                    TASKYARD_TOKEN=viewer)  # fmt: skip
    assert ran.code == 6
    assert f"{name} has the role viewer and may not do create_token" in ran.err
    boss = made(admin, name, "--role", "admin")
    assert shell.run("tokens", "create", "x@example.com", "--role", "viewer", *WHY,
                     TASKYARD_TOKEN=boss).code == 0  # fmt: skip
    (used, unused) = shell.run("tokens", "list", "--subject", name, "--json").document
    assert used["last_used_at"] is not None
    assert unused["last_used_at"] is not None


@pytest.mark.parametrize("words", [("dlq", "replay", "0123456789"), ("reconcile", "--accept")])
def test_every_verb_refuses_a_bad_token_in_one_line_without_showing_it(
    admin: Shell, name: str, words: tuple[str, ...]
) -> None:
    token = Token.parse(made(admin, name))
    for given, said in (
        ("hunter2", "TASKYARD_TOKEN does not hold a token. Expected ty_, 12"),
        (
            token.with_new_secret().reveal(),
            "the token is not in this database, or its secret is wrong",
        ),
    ):
        ran = admin.run(*words, *WHY, TASKYARD_TOKEN=given)
        assert ran.code == 6, ran.err
        assert said in ran.err
        assert given not in ran.err
        assert "taskyard tokens create" in ran.err
        assert ran.err.count("\n") == 1


def test_even_a_stack_trace_holds_no_token(admin: Shell, name: str) -> None:
    token = Token.parse(made(admin, name)).with_new_secret()
    words = ("--traceback", "dlq", "replay", "0123456789", *WHY)
    environment = admin.environ({"TASKYARD_TOKEN": token.reveal()})
    ran = admin._spawn(words, "", environment)
    assert "Traceback" in ran.err
    assert token.secret not in ran.err + ran.out


def test_env_says_that_a_token_is_set_and_never_which(admin: Shell, name: str) -> None:
    text = made(admin, name)
    for words in (("env",), ("env", "--json"), ("env", "--show-secrets")):
        ran = admin.run(*words, TASKYARD_TOKEN=text)
        assert "[redacted]" in ran.out
        assert Token.parse(text).secret not in ran.out + ran.err


def test_a_rotated_token_is_shown_once_and_a_revoked_one_is_refused(
    admin: Shell, shell: Shell, name: str
) -> None:
    old = Token.parse(made(admin, name, "--role", "admin"))
    ran = admin.run("tokens", "rotate", old.id, *WHY, "--overlap", "2h", "--json")
    new = Token.parse(ran.document["token"])
    assert new.id == old.id
    for token in (old, new):
        assert shell.run("users", "grant", name, "--role", "viewer", *WHY,
                         TASKYARD_TOKEN=token.reveal()).code == 0  # fmt: skip
    assert (
        admin.run("tokens", "revoke", old.id, *WHY).out == f"revoked the token {old.id} of {name}\n"
    )
    for token in (old, new):
        ran = shell.run("users", "list", TASKYARD_TOKEN=token.reveal())
        assert ran.code == 6
        ran = shell.run("users", "revoke", name, *WHY, TASKYARD_TOKEN=token.reveal())
        assert ran.code == 6
        assert f"the token {old.id} was revoked at" in ran.err


def test_a_whole_token_as_an_argument_is_refused_and_named_by_its_id(
    admin: Shell, name: str
) -> None:
    token = Token.parse(made(admin, name))
    for verb in ("revoke", "rotate"):
        ran = admin.run("tokens", verb, token.reveal(), *WHY)
        assert ran.code == 2
        assert token.secret not in ran.err
        assert f"Run: taskyard tokens revoke {token.id}" in ran.err


@pytest.mark.parametrize("json", [(), ("--json",)])
@pytest.mark.parametrize(
    "words",
    [
        ("tokens", "create", "{}", "--role", "viewer"),
        ("tokens", "create", "bob@x", "--role", "viewer", "--queues", "{}"),
        ("tokens", "create", "bob@x", "--role", "viewer", "--queues", "{},,"),
        ("tokens", "create", "bob@x", "--role", "viewer", "--grant", "{}"),
        ("users", "grant", "{}", "--role", "viewer"),
        ("users", "revoke", "{}"),
    ],
)
def test_a_whole_token_where_a_name_belongs_is_shown_nowhere(
    admin: Shell, words: tuple[str, ...], json: tuple[str, ...]
) -> None:
    token = Token.new()
    ran = admin.run(*(word.format(token.reveal()) for word in words), *WHY, *json)
    assert ran.code != 0
    assert token.secret not in ran.out + ran.err


def test_no_command_takes_a_token_as_an_option() -> None:
    for noun, entry in COMMANDS.items():
        verbs = [entry] if isinstance(entry, Command) else list(entry.verbs.values())
        for command in verbs:
            options = {o for p in load(noun, command).params for o in p.opts}
            assert not options & {"--token", "--secret", "--password"}, command.module


@pytest.mark.parametrize(
    ("words", "said", "code"),
    [
        (("--role", "king"), "king", 2),
        (("--role", "viewer", "--expires", "soon"), "expected a duration", 2),
        (
            ("--role", "viewer", "--expires", "0s"),
            "expected a token's lifetime above 0 and of at most 366 days",
            2,
        ),
        (("--role", "viewer", "--expires", "999999w"), "at most 366 days", 2),
        (
            ("--role", "viewer", "--expires", "400d"),
            "at most 366 days, got 400 days. See: taskyard tokens create --help",
            2,
        ),
        (
            ("--role", "viewer", "--expires", "8785h"),
            "at most 366 days, got 8785 hours. See: taskyard tokens",
            2,
        ),
        (("--role", "viewer", "--queues", "exec,,plan"), "separated by commas", 2),
        (("--role", "viewer", "--grant", "fly"), "there is no action 'fly'", 2),
        (("--role", "viewer", "--grant", "purge_queue"), "cannot be granted by name", 2),
        ((), "--role", 2),
    ],
)
def test_wrong_words_are_refused_with_what_was_expected(
    admin: Shell, name: str, words: tuple[str, ...], said: str, code: int
) -> None:
    ran = admin.run("tokens", "create", name, *WHY, *words)
    assert (ran.code, ran.out) == (code, "")
    assert said in ran.err


@pytest.mark.parametrize("words", [("tokens", "create"), ("users", "grant")])
def test_a_warning_names_a_queue_that_may_be_a_typing_error(
    admin: Shell, name: str, app_queue: str, words: tuple[str, ...]
) -> None:
    def warnings(queues: str, **variables: str) -> list[str]:
        ran = admin.run(*words, name, "--role", "viewer", "--queues", queues, *WHY, **variables)
        assert ran.code == 0, ran.err
        return [line for line in ran.err.splitlines() if line.startswith("warning: ")]

    assert warnings(f"exec,{app_queue}") == []
    known = f"Known: plan, exec, locator, ops, {app_queue}. The bound is stored as you gave it"
    (line,) = warnings("exce")
    assert line == f"warning: the queue 'exce' is not known here; did you mean 'exec'? {known}"
    (line,) = warnings("shp")
    assert line == f"warning: the queue 'shp' is not known here; did you mean 'shop'? {known}"
    (line,) = warnings("zzz")
    assert line == f"warning: the queue 'zzz' is not known here. {known}"
    (line,) = warnings(app_queue, TASKYARD_REDIS_URL="redis://127.0.0.1:1/0")
    assert "Redis does not answer, so the queues of installed apps are unknown. The" in line


def test_users_are_granted_listed_and_revoked(admin: Shell, name: str) -> None:
    words = ("--role", "operator", "--domains", "billing", "--grant", "read_payload")
    ran = admin.run("users", "grant", name, *words, *WHY)
    assert ran.out == f"{name} is operator, bounds: domains billing\n"
    (row,) = [
        row for row in admin.run("users", "list", "--json").document if row["subject"] == name
    ]
    assert (row["role"], row["queues"], row["domains"]) == ("operator", None, ["billing"])
    assert row["granted"] == ["read_payload"]
    assert name in admin.run("users", "list").out
    left = Token.parse(made(admin, name))
    ran = admin.run("users", "revoke", name, *WHY)
    assert ran.out == f"{name} has no rights any more\n"
    assert f"Run: taskyard tokens revoke {left.id}" in ran.err
    ran = admin.run("users", "revoke", name, *WHY)
    assert (ran.code, ran.err) == (
        4, f"error: {name!r} has no rights. See: taskyard users list\n"
    )  # fmt: skip


def test_without_an_identity_nobody_makes_a_token(shell: Shell, name: str) -> None:
    ran = shell.run("tokens", "create", name, "--role", "viewer", *WHY)
    assert (ran.code, ran.out) == (6, "")
    assert "TASKYARD_TOKEN" in ran.err
