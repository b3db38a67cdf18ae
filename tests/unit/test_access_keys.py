"""The two files of signing: the key ring and the private key."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from taskyard.access import Action, Role
from taskyard.access.key_files import LOOK_EVERY_S, RingFile, read_ring, read_signing_key
from taskyard.access.key_ring import KeyRing, PublicKey, key_id_of
from taskyard.errors import InvalidSettings

# Always the same: its id stands in the ids of tests, which several processes compare.
PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = PRIVATE.public_key().public_bytes_raw()
KEY_ID = key_id_of(PUBLIC)
TEXT = base64.urlsafe_b64encode(PUBLIC).decode().rstrip("=")
PEM = PRIVATE.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
FULL = f"""
[keys.{KEY_ID}]
public_key = "{TEXT}"
subjects = ["anna@example.com", "*@ops.example.com"]
role = "operator"
queues = ["exec"]
granted = ["read_payload"]
not_before = 2026-11-01T00:00:00+00:00
not_after = 2027-01-01T00:00:00Z
"""


class StoppedClock:
    """A clock that a test moves."""

    at_s = 1000.0

    def now(self) -> datetime:
        return datetime(2026, 11, 28, tzinfo=UTC)

    def monotonic_s(self) -> float:
        return self.at_s

    def wait_s(self, seconds: float) -> None:
        self.at_s += seconds


def test_a_key_ring_is_read_and_written_without_loss():
    ring = KeyRing.parse(FULL, "keys.toml")
    key = ring[KEY_ID]
    assert (key.role, key.queues, key.domains) == (Role.OPERATOR, {"exec"}, None)
    assert key.granted == {Action.READ_PAYLOAD}
    assert key.not_after == datetime(2027, 1, 1, tzinfo=UTC)
    assert dict(KeyRing.parse(ring.render(), "again")) == dict(ring)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("keys = [", "is not valid TOML"),
        ("keys = 3", "must contain only tables"),
        (FULL + "[more]", "must contain only tables .* got: more"),
        (FULL.replace("operator", "root"), f"key {KEY_ID}: role: "),
        (FULL.replace(TEXT, TEXT[:-4]), "public_key: expected the 32 bytes"),
        (FULL.replace(TEXT, "!" * 43), "public_key: expected the 32 bytes"),
        (FULL.replace('"exec"]', '"exec"]\nmore = 1'), "more: Extra inputs"),
        (FULL.replace("*@ops.example.com", "*"), "subjects: expected a name"),
        (FULL.replace("*@ops.example.com", "*@*.com"), "subjects: expected a name"),
        (FULL.replace("*@ops.example.com", "a b"), "subjects: expected a name"),
        (FULL.replace("*@ops.example.com", "a\\u0000"), "subjects: expected a name"),
        (FULL.replace("00:00+00:00", "00:00"), "not_before: Input should have timezone"),
        (FULL.replace(KEY_ID, "another"), f"another. holds the key {KEY_ID}"),
    ],
)
def test_a_wrong_key_ring_is_refused_with_the_place_of_its_fault(text: str, said: str):
    with pytest.raises(InvalidSettings, match=said):
        KeyRing.parse(text, "keys.toml")


def test_a_key_takes_the_place_of_the_one_with_its_id():
    ring = KeyRing.parse(FULL, "keys.toml")
    changed = PublicKey.model_validate({**_facts(), "role": "viewer"})
    assert ring.having(changed)[KEY_ID].role is Role.VIEWER
    assert len(ring.having(changed)) == 1


def _facts() -> dict[str, object]:
    return {"public_key": TEXT, "subjects": ["anna@example.com"], "role": "operator"}


@pytest.fixture
def pem(tmp_path: Path) -> Path:
    path = tmp_path / "key.pem"
    path.write_bytes(PEM)
    path.chmod(0o600)
    return path


def test_a_private_key_is_read_and_never_shown(pem: Path):
    key = read_signing_key(pem)
    assert (key.key_id, key.public_key) == (KEY_ID, PUBLIC)
    assert repr(key) == f"SigningKey({KEY_ID})"
    PRIVATE.public_key().verify(key.sign(b"data"), b"data")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660])
def test_a_private_key_that_others_can_read_is_refused(pem: Path, mode: int):
    pem.chmod(mode)
    with pytest.raises(InvalidSettings, match=f"chmod 600 {pem}"):
        read_signing_key(pem)


def test_what_is_no_private_key_is_refused_without_being_quoted(pem: Path):
    p256 = generate_private_key(SECP256R1())
    locked = PRIVATE.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"hidden")
    )
    for content, said in (
        (b"hidden", "is not a private key in PEM"),
        (locked, "is not a private key in PEM"),
        (p256.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), "Ed25519"),
    ):
        pem.write_bytes(content)
        with pytest.raises(InvalidSettings, match=said) as refused:
            read_signing_key(pem)
        assert "hidden" not in str(refused.value)
    with pytest.raises(InvalidSettings, match="TASKYARD_SIGNING_KEY names it"):
        read_signing_key(pem.with_name("none"))


def test_a_key_ring_that_anyone_can_change_is_refused(tmp_path: Path):
    path = tmp_path / "keys.toml"
    path.write_text(FULL)
    path.chmod(0o666)
    with pytest.raises(InvalidSettings, match=f"chmod o-w {path}"):
        read_ring(path)
    with pytest.raises(InvalidSettings, match="TASKYARD_PUBLIC_KEYS names it"):
        read_ring(path.with_name("none"))


def test_a_changed_key_ring_counts_from_the_next_look(tmp_path: Path):
    path, clock = tmp_path / "keys.toml", StoppedClock()
    path.write_text(FULL)
    file = RingFile(path, clock)
    assert KEY_ID in file.ring()
    path.write_text("")
    assert KEY_ID in file.ring()
    clock.wait_s(LOOK_EVERY_S)
    assert KEY_ID not in file.ring()


def test_a_key_ring_that_became_unreadable_vouches_for_nobody_until_it_is_mended(tmp_path: Path):
    path, clock = tmp_path / "keys.toml", StoppedClock()
    path.write_text(FULL)
    file = RingFile(path, clock)
    assert KEY_ID in file.ring()
    path.write_text("keys = [")
    clock.wait_s(LOOK_EVERY_S)
    for _ in range(2):
        with pytest.raises(InvalidSettings, match="is not valid TOML"):
            file.ring()
    path.write_text(FULL)
    clock.wait_s(LOOK_EVERY_S)
    assert KEY_ID in file.ring()
