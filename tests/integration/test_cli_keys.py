"""`taskyard keys` and `taskyard sign`, as a person uses them."""

from __future__ import annotations

import json
import stat
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, select

from support.shell import Shell
from support.signing import WHY
from taskyard.access import Action, Identity, Role
from taskyard.access.broadcast_calls import command_at
from taskyard.access.credential import call_of
from taskyard.access.credential_faults import Fault
from taskyard.access.key_files import read_ring, read_signing_key
from taskyard.access.key_ring import KeyRing, PublicKey, text_of
from taskyard.access.operator_task_call import call_of_task
from taskyard.access.operator_task_table import REPLAY_TASK
from taskyard.access.verify_credential import verify
from taskyard.clock import SYSTEM_CLOCK
from taskyard.control import keys
from taskyard.control.authenticate_operator import local_identity
from taskyard.control.change_key_ring import change_ring
from taskyard.control.rights import Rights
from taskyard.control.sign_message import sign_call
from taskyard.database.tables import AUDIT
from taskyard.errors import (
    CredentialRefused,
    InvalidReason,
    InvalidRights,
    MissingSetting,
    NotFound,
    NotPermitted,
    Refused,
)
from taskyard.settings import Settings
from taskyard.wire.credential_argument import CREDENTIAL

ADMIN = Identity("root@example.com", via="token:1", role=Role.ADMIN)
ME = local_identity(Settings(trust_local=True)).subject
ARGUMENTS = {"letter_id": "9f3c1a52-6e0e-5d6c-9a37-3d4f6a1f2c11", "reason": WHY}


def binding(*subjects: str, role: Role = Role.OPERATOR) -> keys.Binding:
    return keys.Binding(frozenset(subjects or ("ada@example.com",)), Rights(role))


def audit_rows(database: Engine) -> list[dict[str, Any]]:
    with database.connect() as connection:
        query = select(AUDIT).order_by(AUDIT.c.id)
        return [dict(row) for row in connection.execute(query).mappings()]


@pytest.fixture
def signer(shell: Shell, tmp_path: Path) -> Shell:
    """A shell whose user is trusted, with a key ring and a signing key to come."""
    shell.variables |= {
        "TASKYARD_TRUST_LOCAL": "1",
        "TASKYARD_PUBLIC_KEYS": str(tmp_path / "ring.toml"),
        "TASKYARD_SIGNING_KEY": str(tmp_path / "key.pem"),
    }
    return shell


def create(shell: Shell, *words: str) -> Any:
    return shell.run(
        "keys", "create", ME, "--role", "operator", "--private-key",
        shell.variables["TASKYARD_SIGNING_KEY"], "--reason", WHY, *words,
    )  # fmt: skip


def test_a_key_is_created_checked_and_signs_for_a_worker_that_has_its_ring(
    signer: Shell, tmp_path: Path
) -> None:
    ran = create(signer, "--queues", "exec")
    assert ran.code == 0, ran.err
    key_id = ran.out.strip()
    private = tmp_path / "key.pem"
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    ring = read_ring(tmp_path / "ring.toml")
    assert read_signing_key(private).key_id == key_id == next(iter(ring))
    # The local user is an admin, and signs as what the key is for.
    assert signer.run("keys", "check", "--json").document["signs"] is True
    kwargs = signer.run("sign", REPLAY_TASK, "--kwargs", json.dumps(ARGUMENTS)).document
    call = call_of_task(signer.variables["TASKYARD_NAMESPACE"], REPLAY_TASK, ARGUMENTS)
    identity = verify(kwargs[CREDENTIAL], ring, call, SYSTEM_CLOCK.now()).identity
    assert (identity.subject, identity.role, identity.queues) == (ME, "operator", {"exec"})


def test_an_operators_token_signs_with_its_key(signer: Shell, tmp_path: Path) -> None:
    token = signer.run(
        "tokens", "create", "ada@example.com", "--role", "operator", "--reason", WHY
    ).out.strip()
    assert signer.run(
        "keys", "create", "ada@example.com", "--role", "operator", "--private-key",
        str(tmp_path / "key.pem"), "--reason", WHY,
    ).code == 0  # fmt: skip
    signer.variables["TASKYARD_TOKEN"] = token
    checked = signer.run("keys", "check", "--json")
    assert checked.document["signs"] is True
    kwargs = signer.run("sign", REPLAY_TASK, "--kwargs", json.dumps(ARGUMENTS)).document
    assert {name: kwargs[name] for name in ARGUMENTS} == ARGUMENTS
    namespace = signer.variables["TASKYARD_NAMESPACE"]
    call = call_of_task(namespace, REPLAY_TASK, ARGUMENTS)
    ring = read_ring(tmp_path / "ring.toml")
    verified = verify(kwargs[CREDENTIAL], ring, call, SYSTEM_CLOCK.now())
    assert (verified.identity.subject, verified.identity.role) == ("ada@example.com", "operator")


def test_a_control_command_is_signed_for_every_worker(signer: Shell, tmp_path: Path) -> None:
    create(signer)
    given = {"task_id": ["a", "b"], "terminate": True}
    signed = signer.run("sign", "revoke", "--kwargs", json.dumps(given)).document
    assert {name: signed[name] for name in given} == given
    namespace = signer.variables["TASKYARD_NAMESPACE"]
    call = command_at(namespace, Action.ABORT_REQUEST, "revoke", given, "any@host")
    ring = read_ring(tmp_path / "ring.toml")
    assert verify(signed[CREDENTIAL], ring, call, SYSTEM_CLOCK.now()).identity.subject == ME
    assert signer.run("sign", "ping", "--kwargs", "{}").code == 2


def test_sign_says_what_is_missing(signer: Shell, bare_shell: Shell) -> None:
    for shell, words, said in (
        (
            signer,
            ("nothing", "--kwargs", "{}"),
            "is neither an operator task nor a control command that can be signed; known: ",
        ),
        (signer, (REPLAY_TASK, "--kwargs", "[]"), "to be a JSON object of all named arguments"),
        (signer, (REPLAY_TASK, "--kwargs", "{}"), "needs the named argument 'letter_id'"),
        (
            signer,
            (REPLAY_TASK, "--kwargs", '{"letter_id": "0d2e8c4d", "reason": "no matter"}'),
            "needs a whole id in the argument 'letter_id', a UUID; got: '0d2e8c4d'",
        ),
        (bare_shell, (REPLAY_TASK, "--kwargs", json.dumps(ARGUMENTS)), "TASKYARD_SIGNING_KEY"),
    ):
        ran = shell.run("sign", *words)
        assert ran.code == 2
        assert said in " ".join(ran.err.split())
        assert ran.out == ""


def test_check_looks_at_the_ring_and_the_private_key(signer: Shell, tmp_path: Path) -> None:
    def found() -> list[tuple[str, str]]:
        findings = signer.run("check", "--json").document["findings"]
        return [(one["level"], one["detail"]) for one in findings if one["subject"] == "keys"]

    [(level, detail)] = found()
    assert (level, "cannot be read" in detail) == ("error", True)
    create(signer, "--expires", "10d")
    levels = [level for level, _ in found()]
    assert levels == ["ok", "warning", "ok"]
    (tmp_path / "key.pem").chmod(0o644)
    level, detail = found()[-1]
    assert (level, "chmod 600" in detail) == ("error", True)
    (tmp_path / "ring.toml").write_text("")
    assert ("warning", True) in [(level, "has no active key" in text) for level, text in found()]


def test_an_operator_task_is_no_job_to_enqueue(signer: Shell) -> None:
    ran = signer.run("jobs", "enqueue", REPLAY_TASK, json.dumps(ARGUMENTS))
    assert ran.code == 6
    assert "is no job to enqueue. Publish it with: celery" in " ".join(ran.err.split())


def test_creating_listing_and_retiring_are_audited(
    signer: Shell, database: Engine, tmp_path: Path
) -> None:
    before = len(audit_rows(database))
    key_id = create(signer, "--expires", "90d").out.strip()
    (listed,) = signer.run("keys", "list", "--json").document
    assert (listed["id"], listed["subjects"], listed["state"]) == (key_id, [ME], "active")
    assert key_id in signer.run("keys", "list").out
    retired = signer.run("keys", "retire", key_id, "--overlap", "0s", "--reason", WHY)
    assert retired.code == 0, retired.err
    (listed,) = signer.run("keys", "list", "--json").document
    assert listed["state"] == "retired"
    rows = audit_rows(database)[before:]
    assert [(row["action_type"], row["outcome"]) for row in rows] == [
        ("create_key", "requested"),
        ("create_key", "applied"),
        ("retire_key", "requested"),
        ("retire_key", "applied"),
    ]
    assert {row["operator_identity"] for row in rows} == {ME}
    assert {row["detail"]["key"] for row in rows} == {key_id}
    assert (tmp_path / "key.pem").read_text() not in str(rows)


def test_a_public_key_that_was_made_elsewhere_is_registered(
    signer: Shell, database: Engine, tmp_path: Path
) -> None:
    create(signer)
    public = signer.run("keys", "list", "--json").document[0]["public_key"]
    words = ("keys", "create", "a@example.com", "--role", "viewer", "--reason", WHY)
    other = {"TASKYARD_PUBLIC_KEYS": str(tmp_path / "other.toml")}
    assert signer.run(*words, "--public-key", public, **other).code == 0
    again = signer.run(*words, "--public-key", public, **other)
    assert (again.code, "has the key" in again.err) == (5, True)
    assert signer.run(*words, "--public-key", "abc", **other).code == 2
    assert signer.run(*words, **other).code == 2


def test_no_key_is_made_over_a_file_above_ones_own_role_or_without_a_reason(
    database: Engine, tmp_path: Path
) -> None:
    ring, private = tmp_path / "ring.toml", tmp_path / "key.pem"
    operator = Identity("op@example.com", via="token:1", role=Role.OPERATOR)
    for error, options in (
        (NotPermitted, {"identity": operator, "reason": WHY}),
        (InvalidReason, {"identity": ADMIN, "reason": "fix it"}),
    ):
        with pytest.raises(error):
            keys.create(database, ring, private, binding(), **options)
    with pytest.raises(InvalidRights, match="expected a name without spaces"):
        keys.create(database, ring, private, binding("*"), identity=ADMIN, reason=WHY)
    private.write_text("another key")
    with pytest.raises(Refused, match="never replaces a file"):
        keys.create(database, ring, private, binding(), identity=ADMIN, reason=WHY)
    assert private.read_text() == "another key"
    assert not ring.exists()
    assert audit_rows(database)[-1]["outcome"].startswith("refused: the file")


def test_a_key_is_retired_once_and_only_if_it_is_there(database: Engine, tmp_path: Path) -> None:
    ring = tmp_path / "ring.toml"
    made = keys.create(database, ring, tmp_path / "key.pem", binding(), identity=ADMIN, reason=WHY)
    options: dict[str, Any] = {"identity": ADMIN, "reason": WHY}
    with pytest.raises(NotFound, match="has no key 'none'"):
        keys.retire(database, ring, "none", **options)
    with pytest.raises(InvalidRights, match="expected an overlap from 0 to 31 days"):
        keys.retire(database, ring, made.key_id, overlap=timedelta(days=32), **options)
    keys.retire(database, ring, made.key_id, **options)
    with pytest.raises(Refused, match="already ends at"):
        keys.retire(database, ring, made.key_id, **options)
    # In wrong hands it ends at once all the same.
    keys.retire(database, ring, made.key_id, overlap=timedelta(0), **options)


def test_in_a_rotation_both_keys_sign_until_the_overlap_is_over(
    database: Engine, tmp_path: Path
) -> None:
    ring = tmp_path / "ring.toml"
    admin = binding(ME, role=Role.ADMIN)
    for name in ("old", "new"):
        keys.create(database, ring, tmp_path / name, admin, identity=ADMIN, reason=WHY)
    old = read_signing_key(tmp_path / "old").key_id
    call = call_of("taskyard", Action.WHOAMI, {})

    def sign_with(name: str) -> str:
        files = {"public_keys": ring, "signing_key": tmp_path / name}
        return sign_call(Settings(trust_local=True, **files), call)

    keys.retire(database, ring, old, identity=ADMIN, reason=WHY)
    assert sign_with("old").split(".")[1] == old
    assert sign_with("new").split(".")[1] != old
    keys.retire(database, ring, old, overlap=timedelta(0), identity=ADMIN, reason=WHY)
    with pytest.raises(CredentialRefused) as refused:
        sign_with("old")
    assert refused.value.code == Fault.RETIRED_KEY
    assert sign_with("new")


def test_changes_at_once_are_all_kept(tmp_path: Path) -> None:
    path = tmp_path / "ring.toml"
    made = [
        PublicKey.model_validate(
            {"public_key": text_of(bytes([n] * 32)), "subjects": [f"a{n}"], "role": "viewer"}
        )
        for n in range(20)
    ]
    threads = [
        threading.Thread(target=change_ring, args=(path, lambda ring, key=key: ring.having(key)))
        for key in made
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(read_ring(path)) == {key.key_id for key in made}


def test_a_ring_that_cannot_be_written_stays_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "ring.toml"
    change_ring(path, lambda _: KeyRing({}))
    before = path.read_text()

    def fail(_: KeyRing) -> KeyRing:
        raise MissingSetting("A", "b", "c")

    with pytest.raises(MissingSetting):
        change_ring(path, fail)
    with pytest.raises(Refused, match="cannot be written: No such file"):
        change_ring(tmp_path / "none" / "ring.toml", lambda ring: ring)
    assert path.read_text() == before
    assert {file.name for file in tmp_path.iterdir()} == {"ring.toml", ".ring.toml.lock"}
