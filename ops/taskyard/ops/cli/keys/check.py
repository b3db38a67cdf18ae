"""`taskyard keys check`: whether a message signed in this shell would be accepted."""

from __future__ import annotations

from taskyard.access import Action
from taskyard.access.credential import call_of
from taskyard.access.key_files import read_ring, read_signing_key
from taskyard.access.key_ring import text_of
from taskyard.control.sign_message import sign_call
from taskyard.errors import MissingSetting
from taskyard.ops.cli.console import note, print_json, put_facts
from taskyard.ops.cli.keys.find_key_ring import need_ring
from taskyard.ops.cli.options import Json
from taskyard.ops.cli.target_servers import find_target
from taskyard.settings import Settings

__all__ = ["command"]


def command(json: Json = False) -> None:
    """Check whether a message signed in this shell would be accepted.

    Shows the public key too, which an admin adds with: taskyard keys create --public-key
    """
    settings = find_target(quiet=json).settings
    facts = _facts(settings)
    if json:
        print_json(facts)
        return
    put_facts(facts.items())
    if facts["in the key ring"] is False:
        note("an admin adds it with: taskyard keys create --public-key")


def _facts(settings: Settings) -> dict[str, object]:
    """Return the facts; raises the error that would refuse a message: key, identity or binding."""
    if settings.signing_key is None:
        raise MissingSetting(
            "TASKYARD_SIGNING_KEY",
            "the private key that signs operators' messages",
            "Create one with: taskyard keys create",
        )
    key = read_signing_key(settings.signing_key.expanduser())
    facts: dict[str, object] = {"key": key.key_id, "public key": text_of(key.public_key)}
    if settings.public_keys is not None:
        facts["in the key ring"] = key.key_id in read_ring(need_ring(settings))
    if facts.get("in the key ring") is not False:
        sign_call(settings, call_of(settings.namespace, Action.WHOAMI, {}))
        facts["signs"] = True
    return facts
