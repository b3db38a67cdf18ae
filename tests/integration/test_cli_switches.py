"""`taskyard queues pause|resume`, `kill on|off` and `switches list|apply` in a shell."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from servers import Servers
from support.shell import Shell, connected_shell
from support.signing import Keeper
from taskyard.access import Role
from taskyard.store import connect
from taskyard.switches import Mode, RedisSwitches, SwitchField, SwitchState

# Relay and operators: by the role that they have in production.
AS_RUNTIME = True

WHY = ("--reason", "The provider is down, incident 4711")
NO_POSTGRES = {"TASKYARD_DATABASE_URL": "postgresql://127.0.0.1:1/nowhere"}
NO_REDIS = {"TASKYARD_REDIS_URL": "redis://127.0.0.1:1/0"}


@pytest.fixture
def shell(tmp_path: Path, servers: Servers, database_url: str) -> Shell:
    return connected_shell(tmp_path, servers, database_url, TASKYARD_TRUST_LOCAL="1")


@pytest.fixture
def signing(tmp_path: Path) -> dict[str, str]:
    keeper = Keeper(tmp_path / "keys", role=Role.ADMIN)
    return {
        "TASKYARD_SIGNING_KEY": str(keeper.pem),
        "TASKYARD_PUBLIC_KEYS": str(keeper.ring),
        "TASKYARD_TRUST_LOCAL": "0",
    }


BUTTON = '{"html": "<button>Buy</button>"}'


def switches_of(shell: Shell) -> RedisSwitches:
    variables = shell.variables
    return RedisSwitches(connect(variables["TASKYARD_REDIS_URL"]), variables["TASKYARD_NAMESPACE"])


def test_a_queue_is_paused_shown_and_resumed(shell: Shell) -> None:
    paused = shell.run("queues", "pause", "exec", *WHY, "--for", "2h")
    assert paused.code == 0
    assert re.fullmatch(r"pause queue:exec is on \(hold\) until 20.* UTC\n", paused.out)
    listed = shell.run("queues", "list")
    (line,) = [line for line in listed.out.splitlines() if line.startswith("exec ")]
    assert line.endswith("pause queue:exec (hold)")
    by_queue = {
        each["queue"]: each["switches"] for each in shell.run("queues", "list", "--json").document
    }
    assert by_queue["exec"] == ["pause queue:exec (hold)"]
    assert by_queue["plan"] == []
    resumed = shell.run("queues", "resume", "exec", *WHY)
    assert (resumed.code, resumed.out) == (0, "pause queue:exec is off\n")


def test_the_kill_switch_is_listed_with_who_and_why(shell: Shell) -> None:
    killed = shell.run("kill", "on", "type:report.make", "--force", *WHY, "--json").document
    assert (killed["outcome"], killed["mode"], killed["until"]) == ("applied", "refuse", None)
    (found,) = [
        each
        for each in shell.run("switches", "list", "--json").document
        if each["switch"] == "kill type:report.make"
    ]
    assert (found["now"], found["in"], found["reason"]) == ("refuse", "both", WHY[1])
    assert found["operator"].startswith("local:")
    text = shell.run("switches", "list").out
    assert "kill type:report.make" in text
    assert WHY[1] in text
    rows = shell.run("audit", "show", killed["request_id"], "--json").document
    assert [row["outcome"] for row in rows] == ["requested", "applied"]
    assert shell.run("kill", "off", "type:report.make", *WHY).code == 0
    listed = shell.run("switches", "list").out
    assert "kill type:report.make" not in listed
    assert "kill type:report.make" in shell.run("switches", "list", "--all").out


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("kill", "on", "everything", *WHY), 2, "expected all, queue:NAME, type:NAME"),
        (("kill", "on", "all"), 2, "a reason is required"),
        (("kill", "on", "all", "--reason", "fix it"), 2, "too short or too general"),
        (("kill", "on", "all", *WHY, "--for", "soon"), 2, "expected a duration such as 90s"),
        (("kill", "on", "all", *WHY, "--until", "tomorrow"), 2, "expected a time such as 2027"),
        (("kill", "on", "all", *WHY, "--until", "2020-01-01"), 2, "ends in the future"),
        (("kill", "on", "all", *WHY, "--sign", "--dry-run"), 2, "give only one of"),
        (("queues", "pause", "exce", *WHY), 5, "no queue 'exce'. Close: exec."),
        (("queues", "resume", "locator", *WHY), 5, "pause queue:locator is off"),
        (("kill", "off", "domain:none", *WHY), 5, "kill domain:none is off"),
        (("kill", "on", "everything", *WHY), 2, "See: taskyard kill on --help"),
        (("kill", "on", "queue:*", *WHY), 5, "See: taskyard switches list"),
        (("kill", "on", "all", *WHY, "--sign", "--for", "0s"), 2, "got 0:00:00"),
        (("switches", "apply", "{}"), 2, "the form that `taskyard kill on --sign` prints"),
        (("switches", "apply", "@nowhere.json"), 2, "cannot be read"),
    ],
)
def test_bad_input_is_refused_with_the_rule(
    shell: Shell, words: tuple[str, ...], code: int, says: str
) -> None:
    ran = shell.run(*words, TASKYARD_REQUIRE_REASON="strict")
    assert (ran.code, ran.out) == (code, "")
    assert says in ran.err
    assert switches_of(shell).read().states == {}


def test_a_dry_run_changes_nothing(shell: Shell) -> None:
    ran = shell.run("kill", "on", "all", "--hold", "--dry-run")
    assert (ran.code, ran.out) == (0, "kill all would be on (hold)\n")
    assert switches_of(shell).read().states == {}


def test_while_redis_is_down_the_switch_waits_and_the_list_says_so(shell: Shell) -> None:
    ran = shell.run("kill", "on", "queue:plan", *WHY, **NO_REDIS)
    assert (ran.code, ran.out) == (0, "kill queue:plan is on (refuse)\n")
    assert "The relay puts it there" in ran.err
    (found,) = [
        each
        for each in shell.run("switches", "list", "--json").document
        if each["switch"] == "kill queue:plan"
    ]
    assert (found["now"], found["in"]) == ("off", "newer in Postgres")
    listed = shell.run("switches", "list", **NO_REDIS)
    assert "the switches in Redis are unknown" in listed.err
    assert re.search(r"kill queue:plan +unknown", listed.out)


def test_without_postgres_an_ordinary_command_names_the_way(shell: Shell) -> None:
    ran = shell.run("kill", "on", "all", *WHY, **NO_POSTGRES)
    assert ran.code == 3
    assert "Nothing was changed" in ran.err
    assert "--break-glass" in ran.err
    token = f"ty_0123456789ab_{'A' * 43}"
    ran = shell.run("kill", "on", "all", *WHY, **NO_POSTGRES, TASKYARD_TOKEN=token)
    assert (ran.code, "--break-glass" in ran.err) == (3, True)
    assert switches_of(shell).read().states == {}


def test_break_glass_signs_and_applies_in_one_step(shell: Shell, signing: dict[str, str]) -> None:
    words = ("kill", "on", "all", "--hold", *WHY, "--for", "1h", "--break-glass")
    ran = shell.run(*words, **NO_POSTGRES, **signing)
    assert ran.code == 0, ran.err
    assert ran.out.startswith("kill all is on (hold) until 20")
    assert "mirror and relay bring it to Postgres" in ran.err
    (state,) = switches_of(shell).read().in_force().values()
    assert state.operator == "anna@example.com"
    listed = shell.run("switches", "list", **NO_POSTGRES)
    assert "the switches in Postgres are unknown" in listed.err
    assert re.search(r"kill all +hold", listed.out)


def test_local_trust_breaks_the_glass_without_a_key(shell: Shell) -> None:
    ran = shell.run("queues", "pause", "exec", *WHY, "--break-glass", **NO_POSTGRES)
    assert (ran.code, ran.out) == (0, "pause queue:exec is on (hold)\n")
    ran = shell.run("queues", "resume", "exec", *WHY, "--break-glass", **NO_POSTGRES)
    assert (ran.code, ran.out) == (0, "pause queue:exec is off\n")
    untrusted = shell.run(
        "kill", "on", "all", *WHY, "--break-glass", **NO_POSTGRES, TASKYARD_TRUST_LOCAL="0"
    )
    assert untrusted.code == 6
    wrong = shell.run("queues", "pause", "exce", *WHY, "--break-glass", **NO_POSTGRES)
    assert (wrong.code, "no queue 'exce'" in wrong.err) == (5, True)


def test_a_form_is_signed_without_any_server_and_applied_without_its_key(
    bare_shell: Shell, shell: Shell, signing: dict[str, str]
) -> None:
    space = {"TASKYARD_NAMESPACE": shell.variables["TASKYARD_NAMESPACE"]}
    words = ("kill", "on", "all", "--hold", *WHY, "--sign", "--valid-for", "30d")
    form = bare_shell.run(*words, **signing, **space)
    assert form.code == 0, form.err
    ring = {"TASKYARD_PUBLIC_KEYS": signing["TASKYARD_PUBLIC_KEYS"], "TASKYARD_TRUST_LOCAL": "0"}
    applied = shell.run("switches", "apply", "-", stdin=form.out, **NO_POSTGRES, **ring)
    assert (applied.code, applied.out) == (0, "kill all is on (hold)\n")
    again = shell.run("switches", "apply", "-", stdin=form.out, **NO_POSTGRES, **ring)
    assert (again.code, "the form was used at 20" in again.err) == (6, True)
    other = shell.run("switches", "apply", "-", stdin=form.out, **ring, TASKYARD_NAMESPACE="other")
    assert (other.code, "another namespace" in other.err) == (6, True)


def test_a_switch_that_only_redis_has_is_listed(shell: Shell) -> None:
    switches = switches_of(shell)
    now_us = switches.read().now_us
    field = SwitchField.kill("domain:billing")
    switches.put(field, SwitchState(Mode.REFUSE, version=now_us, since_us=now_us, reason="x"))
    (found,) = [
        each
        for each in shell.run("switches", "list", "--json").document
        if each["switch"] == str(field)
    ]
    assert (found["now"], found["in"]) == ("refuse", "newer in Redis")


def test_what_redis_has_and_nobody_can_read_is_checked_listed_and_turned_off(shell: Shell) -> None:
    switches, field = switches_of(shell), "kill type:batch_locator_generation"
    (fine,) = of_switches(shell)
    assert (fine["level"], fine["detail"]) == ("ok", "no pause and no kill switch is on")
    switches.client.hset(switches.key, mapping={field: "stop", "stop all": "x"})
    (finding,) = of_switches(shell)
    assert finding["level"] == "error"
    assert finding["detail"].startswith(
        f"2 entries of {switches.key} cannot be read: {field!r}, 'stop all'. A newer version"
    )
    ran = shell.run("jobs", "enqueue", "batch_locator_generation", BUTTON)
    assert (ran.code, "cannot be read, so it counts as on" in ran.err) == (5, True)
    (found,) = [
        each for each in shell.run("switches", "list", "--json").document if each["switch"] == field
    ]
    assert (found["now"], found["in"]) == ("hold", "Redis, unreadable")
    lifted = shell.run("kill", "off", "type:batch_locator_generation", *WHY)
    assert (lifted.code, lifted.out) == (0, f"{field} is off\n")
    assert shell.run("jobs", "enqueue", "batch_locator_generation", BUTTON).code == 0


def test_check_names_what_is_on_and_a_key_of_another_type(shell: Shell) -> None:
    assert shell.run("kill", "on", "domain:billing", "--force", "--hold", *WHY).code == 0
    (finding,) = of_switches(shell)
    assert finding["level"] == "warning"
    assert finding["detail"] == "kill domain:billing (hold) is on"
    switches = switches_of(shell)
    switches.client.delete(switches.key)
    switches.client.set(switches.key, "no hash")
    (finding,) = of_switches(shell)
    assert finding["level"] == "error"
    assert f"expected the key '{switches.key}' to be a hash, got a string" in finding["detail"]


def of_switches(shell: Shell) -> list[dict[str, Any]]:
    """The findings of `taskyard check` about switches."""
    found = shell.run("check", "--json").document["findings"]
    return [finding for finding in found if finding["subject"] == "switches"]
