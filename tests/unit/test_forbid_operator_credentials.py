"""No process that runs on holds an operator's credential, and each of `up` has what it needs."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from support.shell import Shell
from taskyard.access import Token
from taskyard.engine.operator_credentials_bootstep import RefuseCredentials
from taskyard.errors import InvalidSettings
from taskyard.ops.up.up_command import withheld
from taskyard.settings import Settings, refuse_operator_credentials

NAMES = ["token", "signing_key"]


def held(name: str) -> str:
    return Token.new().reveal() if name == "token" else "/keys/ada.pem"


@pytest.mark.parametrize("name", NAMES)
def test_settings_with_a_credential_are_refused(name: str) -> None:
    settings = Settings(**{name: held(name)})  # type: ignore[arg-type]  # one of two fields
    with pytest.raises(InvalidSettings, match=f"credential, got: {name}. Its jobs could act"):
        refuse_operator_credentials(settings, {})


@pytest.mark.parametrize("name", NAMES)
def test_a_worker_whose_app_gives_its_settings_itself_is_refused_by_its_environment(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = SimpleNamespace(taskyard=SimpleNamespace(settings=Settings()), steps={})
    worker = SimpleNamespace(app=app)
    RefuseCredentials(worker)
    monkeypatch.setitem(os.environ, f"TASKYARD_{name.upper()}", held(name))
    with pytest.raises(SystemExit, match=f"Remove TASKYARD_{name.upper()} from the worker's"):
        RefuseCredentials(worker)


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_variable_is_no_credential(name: str) -> None:
    refuse_operator_credentials(Settings(), {f"TASKYARD_{name.upper()}": ""})


@pytest.mark.parametrize("source", ["variable", "file"])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("daemon", ["mirror", "relay"])
def test_mirror_and_relay_do_not_start_with_a_credential(
    bare_shell: Shell, tmp_path: Path, daemon: str, name: str, source: str
) -> None:
    text = held(name)
    variables = {f"TASKYARD_{name.upper()}": text} if source == "variable" else {}
    if source == "file":
        (tmp_path / "taskyard.toml").write_text(f'{name} = "{text}"\n')
    ran = bare_shell.run(daemon, **variables)
    assert ran.code == 2
    assert f"a {daemon} must not hold an operator's credential, got: {name}." in ran.err
    assert f"Remove TASKYARD_{name.upper()} from the {daemon}'s environment" in ran.err
    assert text not in ran.err


def test_of_the_workers_of_up_only_that_of_operator_tasks_has_the_url_of_postgres() -> None:
    names = ["mirror", "relay", "exec", "worker-mirror", "ops"]
    assert withheld(names) == {
        name: {"TASKYARD_DATABASE_URL": ""} for name in ("exec", "worker-mirror")
    }
