"""A signed credential: whatever is wrong with it has a refusal of its own, and its remedy."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from taskyard.access import Action, Identity, Role
from taskyard.access.credential import Call, arguments_hash, call_of, sign
from taskyard.access.credential_faults import Fault, refusal
from taskyard.access.key_files import SigningKey
from taskyard.access.key_ring import KeyRing, PublicKey
from taskyard.access.verify_credential import CLOCKS_MAY_DIFFER, verify
from taskyard.errors import CredentialRefused, InvalidPayload

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
LIFE = timedelta(minutes=10)
KEY = SigningKey(Ed25519PrivateKey.generate())
OTHER = SigningKey(Ed25519PrivateKey.generate())
ANNA = Identity("anna@example.com", via="token:1", role=Role.OPERATOR)
LETTER = "9f3c1a52-6e0e-5d6c-9a37-3d4f6a1f2c11"
CALL = call_of("taskyard", Action.CONTROLLED_REPLAY, {"letter_id": LETTER}, [LETTER])


def entry(key: SigningKey = KEY, **changes: Any) -> PublicKey:
    facts: dict[str, Any] = {
        "public_key": base64.urlsafe_b64encode(key.public_key).decode().rstrip("="),
        "subjects": ["anna@example.com"],
        "role": "operator",
    }
    return PublicKey.model_validate({**facts, **changes})


def ring(*keys: PublicKey) -> KeyRing:
    return KeyRing({key.key_id: key for key in keys or (entry(),)})


def signed(
    call: Call = CALL,
    identity: Identity = ANNA,
    key: SigningKey = KEY,
    now: datetime = NOW,
    life: timedelta = LIFE,
) -> str:
    return sign(key, identity, call, now=now, life=life)


def claims_of(text: str) -> dict[str, Any]:
    body = text.split(".")[2]
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    return found


def with_claims(text: str, claims: object, key: SigningKey | None = None) -> str:
    """The text with other claims: signed anew by `key`, or still with the old signature."""
    version, key_id, _, signature = text.split(".")
    body = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    head = f"{version}.{key_id}.{body}"
    if key is not None:
        signature = base64.urlsafe_b64encode(key.sign(head.encode())).decode().rstrip("=")
    return f"{head}.{signature}"


def fault_of(
    text: object, keys: KeyRing | None = None, call: Call = CALL, now: datetime = NOW
) -> str:
    with pytest.raises(CredentialRefused) as refused:
        verify(text, ring() if keys is None else keys, call, now)
    assert str(refused.value) == str(refusal(Fault(refused.value.code)))
    return refused.value.code


def test_a_credential_tells_who_calls_by_which_key():
    verified = verify(signed(), ring(), CALL, NOW)
    assert verified.identity == replace(ANNA, via=f"key:{KEY.key_id}")
    assert verified.nonce_expires_at == (NOW + LIFE + CLOCKS_MAY_DIFFER).timestamp()


def test_each_credential_of_one_call_has_a_nonce_of_its_own():
    assert len({claims_of(signed())["nonce"] for _ in range(50)}) == 50


def test_a_message_without_a_credential_is_unsigned():
    assert fault_of(None) == Fault.UNSIGNED


@pytest.mark.parametrize(
    "text",
    ["", "v1", "v2.a.b.c", 7, b"v1", ["v1"], "v1.a.b.c.d", "v1.é.b.c", "x" * 70_000, "v1..."],
    ids=repr,
)
def test_what_has_not_the_form_of_a_credential_is_malformed(text: object):
    assert fault_of(text) == Fault.MALFORMED


# One text for all examples: each signing draws another nonce.
TEXT = signed()


@given(st.data())
def test_a_credential_with_any_character_changed_is_refused(data: st.DataObject):
    text = TEXT
    place = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.characters(exclude_characters=text[place]))
    changed = text[:place] + other + text[place + 1 :]
    assert fault_of(changed) in {Fault.MALFORMED, Fault.BAD_SIGNATURE, Fault.UNKNOWN_KEY}


@given(st.data())
def test_a_truncated_credential_is_refused(data: st.DataObject):
    text = TEXT
    cut = text[: data.draw(st.integers(0, len(text) - 1))]
    assert fault_of(cut) in {Fault.MALFORMED, Fault.BAD_SIGNATURE}


@given(st.sampled_from(["aud", "verb", "args", "targets", "sub", "role", "iat", "exp", "nonce"]))
def test_a_claim_changed_after_signing_is_a_bad_signature(name: str):
    text = TEXT
    claims = {**claims_of(text), name: "another"}
    assert fault_of(with_claims(text, claims)) == Fault.BAD_SIGNATURE


@pytest.mark.parametrize(
    "change",
    [
        lambda claims: {**claims, "more": 1},
        lambda claims: {name: claims[name] for name in claims if name != "nonce"},
        lambda claims: {**claims, "iat": "1"},
        lambda claims: {**claims, "exp": 2**80},
        lambda claims: {**claims, "role": "root"},
        lambda claims: {**claims, "nonce": "short"},
        lambda claims: {**claims, "sub": ""},
        lambda claims: [claims],
    ],
)
def test_claims_of_another_shape_are_malformed_though_well_signed(
    change: Callable[[dict[str, Any]], object],
):
    text = signed()
    assert fault_of(with_claims(text, change(claims_of(text)), KEY)) == Fault.MALFORMED


def test_a_key_that_the_receiver_lacks_is_unknown():
    assert fault_of(signed(key=OTHER)) == Fault.UNKNOWN_KEY


def test_a_signature_of_another_key_under_a_known_id_is_bad():
    text = signed()
    assert fault_of(with_claims(text, claims_of(text), OTHER)) == Fault.BAD_SIGNATURE


def test_a_credential_of_another_namespace_verb_argument_or_target_is_refused():
    for call, fault in {
        replace(CALL, audience="acme"): Fault.WRONG_AUDIENCE,
        replace(CALL, verb=Action.WHOAMI): Fault.WRONG_VERB,
        replace(CALL, targets=("another",)): Fault.WRONG_TARGET,
        replace(CALL, targets=()): Fault.WRONG_TARGET,
        replace(CALL, arguments=arguments_hash({"letter_id": "x"})): Fault.WRONG_ARGUMENTS,
    }.items():
        assert fault_of(signed(), call=call) == fault


def test_a_broadcast_holds_for_everybody_or_for_those_it_names():
    to_all = Call("taskyard", Action.WHOAMI, arguments_hash({}))
    to_two = replace(to_all, targets=("one@host", "two@host"))
    at_one, at_three = replace(to_all, receiver="one@host"), replace(to_all, receiver="3@host")
    for call, receiver in ((to_all, at_one), (to_all, at_three), (to_two, at_one)):
        assert verify(signed(call), ring(), receiver, NOW).identity.subject == ANNA.subject
    assert fault_of(signed(to_two), call=at_three) == Fault.WRONG_TARGET


def test_the_arguments_are_the_same_in_any_order_and_must_be_json():
    assert arguments_hash({"a": 1, "b": "é"}) == arguments_hash({"b": "é", "a": 1})
    assert arguments_hash({"a": 1}) != arguments_hash({"a": "1"})
    with pytest.raises(InvalidPayload, match="must be JSON"):
        arguments_hash({"a": float("nan")})


@pytest.mark.parametrize("seconds", [-300, -1, 0, 1, 300])
def test_clocks_five_minutes_apart_are_tolerated(seconds: int):
    away = timedelta(seconds=seconds)
    assert verify(signed(now=NOW - away), ring(), CALL, NOW).identity.subject == ANNA.subject
    ends = NOW + LIFE + timedelta(seconds=max(seconds, 0))
    assert verify(signed(), ring(), CALL, ends).identity.subject == ANNA.subject


def test_clocks_further_apart_are_not_tolerated():
    beyond = CLOCKS_MAY_DIFFER + timedelta(seconds=1)
    assert fault_of(signed(now=NOW + beyond)) == Fault.NOT_YET_VALID
    assert fault_of(signed(), now=NOW + LIFE + beyond) == Fault.EXPIRED


@pytest.mark.parametrize("seconds", [3601, 10**6, 0, -1])
def test_a_credential_lives_for_an_hour_at_most_and_ends_after_its_issue(seconds: int):
    assert fault_of(signed(life=timedelta(seconds=seconds))) == Fault.TOO_LONG_LIVED


def test_a_key_signs_for_its_subjects_alone():
    boris = replace(ANNA, subject="boris@example.com")
    assert fault_of(signed(identity=boris)) == Fault.SUBJECT_NOT_OF_KEY
    people = ring(entry(subjects=["*@example.com"]))
    assert verify(signed(identity=boris), people, CALL, NOW).identity.subject == boris.subject
    for subject in ("local:root@example.com", "@example.com", "a@b@example.com", "a@example.com.x"):
        text = signed(identity=replace(ANNA, subject=subject))
        assert fault_of(text, people) == Fault.SUBJECT_NOT_OF_KEY


def test_a_viewers_key_signs_for_no_operator():
    assert fault_of(signed(), ring(entry(role="viewer"))) == Fault.ROLE_ABOVE_KEY


def test_nobody_gets_beyond_the_bounds_of_the_key():
    wide = replace(ANNA, granted=frozenset({Action.READ_PAYLOAD}), domains=frozenset({"a", "b"}))
    text = signed(identity=wide)
    bound = verify(text, ring(entry(queues=["exec"], domains=["b", "c"])), CALL, NOW).identity
    assert (bound.queues, bound.domains, bound.granted) == ({"exec"}, {"b"}, frozenset())
    granting = ring(entry(granted=["read_payload"]))
    assert verify(text, granting, CALL, NOW).identity.may(Action.READ_PAYLOAD)


def test_a_retired_key_and_one_that_is_not_valid_yet_sign_nothing():
    assert fault_of(signed(), ring(entry(not_after=NOW))) == Fault.RETIRED_KEY
    later = NOW + timedelta(seconds=1)
    assert fault_of(signed(), ring(entry(not_before=later))) == Fault.NOT_YET_VALID


def test_while_two_keys_overlap_both_sign():
    keys = ring(entry(not_after=NOW + LIFE), entry(OTHER))
    for key in (KEY, OTHER):
        assert verify(signed(key=key), keys, CALL, NOW).identity.via == f"key:{key.key_id}"
    assert fault_of(signed(), keys, now=NOW + LIFE) == Fault.RETIRED_KEY
    assert verify(signed(key=OTHER), keys, CALL, NOW + LIFE).key.key_id == OTHER.key_id


def test_the_page_on_security_names_every_refusal():
    page = (Path(__file__).parents[2] / "docs" / "security.md").read_text()
    assert [fault for fault in Fault if f"`{fault}`" not in page] == []


def test_no_refusal_shows_what_could_be_used():
    text = signed()
    for fault in Fault:
        sentence = str(refusal(fault))
        assert not any(part in sentence for part in text.split(".")[1:])
        assert ": " in sentence or ". " in sentence
