"""Every command of `taskyard`: its module and the sentence that `--help` shows for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from taskyard.ops.cli.lazy_commands import Command, Noun

__all__ = ["COMMANDS"]

_CLI: Final = "taskyard.ops.cli"

COMMANDS: Final[Mapping[str, Command | Noun]] = {
    "up": Command("taskyard.ops.up.up_command", "Run everything on this machine until Ctrl-C."),
    "demo": Command(
        "taskyard.ops.demo.demo_command",
        "Show a job's way, a failure and its repair, in under a minute.",
    ),
    "check": Command(
        f"{_CLI}.checks.check_command", "Say what is wrong, without running anything."
    ),
    "env": Command(f"{_CLI}.env", "Print every setting in force and where it comes from."),
    "migrate": Command(f"{_CLI}.migrate", "Migrate the database schema to this version."),
    "worker": Command(f"{_CLI}.worker", "Run a Celery worker for one pool.", passes_rest=True),
    "mirror": Command(f"{_CLI}.mirror", "Copy dead letters and job history into Postgres."),
    "relay": Command(f"{_CLI}.relay", "Carry out operators' actions, such as replays."),
    "reconcile": Command(
        f"{_CLI}.reconcile", "Compare broker, records and ledger; repair what is safe."
    ),
    "explain": Command(
        f"{_CLI}.explain", "Say why a job is where it is, and the command that would move it."
    ),
    "queues": Noun(
        "See waiting jobs and their workers; pause, resume, purge and forward queues.",
        {
            "list": Command(
                f"{_CLI}.queues.listing",
                "List the queues: how many jobs wait, and how many workers consume them.",
            ),
            "pause": Command(
                f"{_CLI}.queues.pause",
                "Pause a queue: workers take nothing from it, and services may still enqueue.",
            ),
            "resume": Command(f"{_CLI}.queues.resume", "Resume a paused queue."),
            "purge": Command(
                f"{_CLI}.queues.purge",
                "Cancel each job that waits in a queue, then remove its message; each is audited.",
            ),
            "forward": Command(
                f"{_CLI}.queues.forward",
                "Forward moved jobs out of a RabbitMQ queue that no worker reads.",
            ),
        },
    ),
    "kill": Noun(
        "Stop new work, and with --hold what waits: of everything, a queue, a type or a domain.",
        {
            "on": Command(
                f"{_CLI}.kill.on",
                "Turn the kill switch on: new work is refused, and with --hold what waits is held.",
            ),
            "off": Command(
                f"{_CLI}.kill.off",
                "Turn the kill switch off: new work is accepted, and what was held runs.",
            ),
        },
    ),
    "switches": Noun(
        "See all pauses and kill switches; turn one without Postgres.",
        {
            "list": Command(
                f"{_CLI}.switches.listing",
                "List the pauses and kill switches that are on, and whether Redis and Postgres "
                "agree.",
            ),
            "apply": Command(
                f"{_CLI}.switches.apply",
                "Turn a switch by a form that was signed before, without Postgres and without its "
                "signer.",
            ),
        },
    ),
    "types": Noun(
        "See the policy of each job type.",
        {
            "list": Command(f"{_CLI}.types.listing", "List the job types and how they retry."),
            "show": Command(
                f"{_CLI}.types.show", "Show a job type's policy in force and where it comes from."
            ),
        },
    ),
    "jobs": Noun(
        "Enqueue jobs, show them, wait for them, and end them.",
        {
            "enqueue": Command(f"{_CLI}.jobs.enqueue", "Enqueue one job and print its id."),
            "list": Command(f"{_CLI}.jobs.listing", "List the newest jobs of the ledger."),
            "show": Command(f"{_CLI}.jobs.show", "Show all that is known about a job."),
            "wait": Command(f"{_CLI}.jobs.wait", "Wait for a job's end and print its result."),
            "cancel": Command(
                f"{_CLI}.jobs.cancel",
                "Cancel jobs: one that waits does not begin, a running one is asked to stop.",
            ),
            "abort": Command(
                f"{_CLI}.jobs.abort",
                "Abort jobs: one that waits does not begin, a running one is killed.",
            ),
            "reroute": Command(
                f"{_CLI}.jobs.reroute",
                "Move jobs to another queue; a running attempt is killed.",
            ),
            "complete": Command(
                f"{_CLI}.jobs.complete", "Complete jobs by hand, with a result for their callers."
            ),
        },
    ),
    "dlq": Noun(
        "Show dead letters and replay them.",
        {
            "list": Command(f"{_CLI}.dlq.listing", "List the newest dead letters."),
            "show": Command(f"{_CLI}.dlq.show", "Show one dead letter, secrets masked."),
            "stats": Command(f"{_CLI}.dlq.stats", "Count dead letters by status and category."),
            "replay": Command(f"{_CLI}.dlq.replay", "Send dead letters back to their queues."),
        },
    ),
    "tokens": Noun(
        "Create, renew and end operators' tokens.",
        {
            "create": Command(f"{_CLI}.tokens.create", "Create a token and show it once."),
            "list": Command(f"{_CLI}.tokens.listing", "List the tokens, without their secrets."),
            "rotate": Command(
                f"{_CLI}.tokens.rotate", "Give a token a new secret and show it once."
            ),
            "revoke": Command(f"{_CLI}.tokens.revoke", "End a token at once."),
        },
    ),
    "keys": Noun(
        "Create and end the keys that sign operators' messages.",
        {
            "create": Command(
                f"{_CLI}.keys.create", "Create a key that signs operators' messages."
            ),
            "list": Command(f"{_CLI}.keys.listing", "List the keys of the key ring."),
            "retire": Command(
                f"{_CLI}.keys.retire",
                "End a key; by default an hour later, so that messages signed before are still "
                "accepted.",
            ),
            "check": Command(
                f"{_CLI}.keys.check",
                "Check whether a message signed in this shell would be accepted.",
            ),
        },
    ),
    "whoami": Command(f"{_CLI}.whoami", "Say who you are here, or at every worker."),
    "sign": Command(f"{_CLI}.sign", "Sign the arguments of an operator task or a control command."),
    "users": Noun(
        "Give rights to people who sign in through another system.",
        {
            "grant": Command(
                f"{_CLI}.users.grant", "Give rights to a name, in place of its present ones."
            ),
            "list": Command(f"{_CLI}.users.listing", "List the names that have rights."),
            "revoke": Command(f"{_CLI}.users.revoke", "Remove all rights of a name."),
        },
    ),
    "audit": Noun(
        "See who did what, and whether the log was changed.",
        {
            "list": Command(f"{_CLI}.audit.listing", "List who did what, the newest first."),
            "show": Command(f"{_CLI}.audit.show", "Show all rows of one request, secrets masked."),
            "export": Command(
                f"{_CLI}.audit.export",
                "Write rows of the audit log for an auditor, secrets masked.",
            ),
            "verify": Command(
                f"{_CLI}.audit.verify",
                "Find changes in the audit log since it was sealed.",
            ),
        },
    ),
}
