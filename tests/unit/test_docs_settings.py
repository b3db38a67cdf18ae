"""The settings page and the settings object say the same."""

import re
import tomllib
from datetime import timedelta
from importlib import import_module
from pathlib import Path

import pytest
import yaml

from taskyard import ledger, store
from taskyard.control import find_letter_id, letters
from taskyard.database import conninfo
from taskyard.database.migrate import MINIMUM_POSTGRES
from taskyard.jobs.catalogue import Catalogue
from taskyard.ops.cli.checks import rabbitmq_server, redis_server
from taskyard.ops.cli.jobs import find_job_by_id
from taskyard.settings import Settings

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "settings.md"


def _rows() -> dict[str, list[str]]:
    lines = [line.strip("|").split("|") for line in PAGE.read_text().splitlines()]
    cells = [[cell.strip() for cell in line] for line in lines if len(line) == 5]
    return {row[0].strip("`"): row for row in cells if row[0].startswith("`")}


def test_the_page_lists_every_setting_and_no_other():
    assert set(_rows()) == set(Settings.model_fields)


def test_the_page_names_each_variable_and_default():
    defaults = Settings()
    for name, row in _rows().items():
        assert row[1] == f"`TASKYARD_{name.upper()}`"
        value = getattr(defaults, name)
        if isinstance(value, bool | int | float | str):
            assert row[3] == f"`{str(value).lower() if isinstance(value, bool) else value}`", name


def _limits() -> dict[str, str]:
    part = PAGE.read_text().partition("## Fixed limits")[2].partition("\n## ")[0]
    lines = [line.strip("|").split("|") for line in part.splitlines()[4:] if line]
    return {line[0].strip(): line[1] for line in lines}


# Row of the page -> where its numbers stand in the code, in the row's order.
LIMITS = {
    "one pop": ["transport.pop_messages:BATCH"],
    "an idle consumer asks": ["transport.queue_notifications:RECHECK_S"],
    "messages held while jobs end quickly": [
        "transport.ack_rate:BURST",
        "transport.ack_rate:QUICK_S",
    ],
    "what is held beyond the prefetch count goes back": [
        "transport.ack_rate:_SLOW_AFTER_S",
        "engine.return_over_prefetch:INTERVAL_S",
    ],
    "an acknowledgement waits for a pop": ["transport.qos:_ACK_DELAY_S"],
    "a worker's process that died": [
        "engine.prefork_pool:LOOK_AGAIN_S",
        "engine.prefork_pool:LOOKS",
    ],
    "what a job's process holds": ["engine.pool_process_memory:INTERVAL_S"],
    "a message that its task gives back a second time": ["transport.requeue:RETURN_S"],
    "what a server refuses: a permission, a key of another type, full memory": [
        "wire.failure_backoff:FIRST_WAIT_S",
        "wire.failure_backoff:LONGEST_WAIT_S",
        "wire.failure_backoff:_FORGOTTEN_S",
    ],
    "messages held back for such a wait": ["engine.celery_messages:MOST_HELD"],
    "a dead consumer's messages are looked for": ["transport.transport:_SWEEP_S"],
    "one promotion from the delay store": ["broker:PROMOTE_BATCH"],
    "promotions": [
        "engine.delay_promoter:INTERVAL_S",
        "engine.delay_promoter:_ROUNDS",
    ],
    "jobs that go together (`enqueue_many`, concurrent calls)": [
        "records.bulk_admission:_GROUP",
        "records.bulk_admission:_GROUP_BYTES",
    ],
    "`enqueue_many`": ["records.bulk_admission:SCRIPTS_AHEAD"],
    "concurrent calls": [
        "client.admit_and_publish:_SCRIPTS",
        "records.bulk_admission:_TURN_BYTES",
        "client.admit_and_publish:_SCRIPTS_APART",
    ],
    "threads that share a client": ["client.shared_calls:_LANES", "client.shared_calls:_ONE_LANE"],
    "what a client keeps ready": [
        "client.shared_calls:_LINGER_S",
        "client.awaited_results:_LINGER_S",
    ],
    "heartbeat of a consumer": ["transport.owner_descriptions:OWNER_TTL_S"],
    "heartbeat of a worker": ["records.live_workers:GONE_S", "records.live_workers:FORGOTTEN_S"],
    "deliveries by a quorum queue of RabbitMQ": ["queues.rabbit_queue:BROKER_DELIVERY_LIMIT"],
    "new delay levels on RabbitMQ": ["broker.delay_exchanges:_ON_DISK_S"],
    "a message that came back to a quorum queue": [
        "engine.quorum_delivery_limit:RENEW_AT",
        "engine.quorum_delivery_limit:HELD_S",
    ],
    "messages restored at once": ["transport.requeue:RESTORE_BATCH"],
    "task events for monitors": ["engine.consumer:EVENT_INTERVAL_S", "engine.consumer:EVENT_BATCH"],
    "what waits to be observed by `taskyard.install`": ["install.observer:_WAITING"],
    "what waits to be recorded by `install(…, admit=True)`": ["install.admit_on_publish:_WAITING"],
    "records of publications": [
        "install.admit_on_publish:_BATCH",
        "install.admit_on_publish:_GATHER_S",
        "install.admit_on_publish:_EXIT_S",
    ],
    "where an installed app's queues are": [
        "install.queue_announcer:EVERY_S",
        "install.announced_queues:_FORMER_US",
        "install.announced_queues:_FORGOTTEN_US",
    ],
    "a watched task's lease": ["install.installed_context:_WATCH_S"],
    "connecting to Redis, to Postgres": ["store.redis_client:_SOCKET_TIMEOUT_S"],
    "tries of one command": ["store.redis_client:TRIES"],
    "patience around a handler": [
        "runner.redis_retry:_BEFORE_REPEATS",
        "runner.redis_retry:_BEFORE_S",
        "runner.redis_retry:_AFTER_REPEATS",
        "runner.redis_retry:_AFTER_S",
        "runner.redis_retry:_LONGEST_WAIT_S",
    ],
    "a worker that lost Redis": [
        "engine.broker_reconnect:_FIRST_S",
        "engine.broker_reconnect:LONGEST_S",
    ],
    "failed attempts in a record": ["records.job_record:HISTORY_LINES"],
    "what a payload may be nested": ["client.check_request:_DEEPEST"],
    "an id or a task's name in a message": ["wire.stamp_header:LONGEST_ID"],
    "asking for a result": ["client.job_handle:_FIRST_WAIT_S", "client.job_handle:_LONGEST_WAIT_S"],
    "awaiting results (`aresult`)": [
        "client.result_listener:_TURN_S",
        "client.result_listener:_POLL_AFTER_S",
        "client.result_listener:_POLLS",
    ],
    "a silent subscription": ["client.result_listener:_QUIET_S"],
    "a result's last answer": ["client.timeouts:LAST_ASK_S"],
    "error message, traceback in a letter": [
        "runner.exception_facts:MESSAGE_LIMIT",
        "runner.exception_facts:TRACEBACK_LIMIT",
    ],
    "a letter on RabbitMQ": ["deadletters.publish_letter:_COMPRESSED_OVER_BYTES"],
    "a compressed letter": ["wire.letter_envelope:ENVELOPE_LIMIT"],
    "arguments of a compressed message in its letter": [
        "deadletters.letter_from_record:_SHOWN_BYTES"
    ],
    "a review queue": ["deadletters.publish_letter:REVIEW_LIMIT"],
    "a kept copy of a letter": ["deadletters.letter_copies:_LARGEST_BYTES"],
    "one batch of the mirror": ["mirror.batch_feeds:BATCH", "mirror.bisect_batch:BATCH_BYTES"],
    "a letter or event that is kept as its bytes alone": [
        "mirror.bisect_batch:WHOLE_BYTES",
        "database.bulk_write:PIECE_BYTES",
    ],
    "a refusal of Postgres that does not say whose fault it is": [
        "mirror.batch_feeds:_UNCLEAR_TRIES"
    ],
    "reclaim by the mirror": [
        "mirror.batch_feeds:_RECLAIM_EVERY_S",
        "mirror.lifecycle_stream:_CLAIM_IDLE_MS",
    ],
    "texts in Postgres": [
        "mirror.letter_rows:_NAME_LENGTH",
        "mirror.letter_rows:_TEXT_LENGTH",
        "mirror.store_lifecycle:_TEXT_LENGTH",
    ],
    "partitions": ["database.partitions:AHEAD", "mirror.partition_upkeep:EVERY_S"],
    "ageing out": [
        "mirror.partition_upkeep:EVERY_S",
        "mirror.partition_upkeep:_CLOCKS_MAY_DIFFER_S",
    ],
    "waits for a server that does not answer": [
        "database.outage_retry:FIRST_WAIT_S",
        "database.outage_retry:LONGEST_WAIT_S",
    ],
    "relay without work": ["relay.relay:_IDLE_S"],
    "an intent that is postponed": ["relay.results:LONGEST_WAIT_S"],
    "a relay's batch": [
        "relay.relay:_MOST_INTENTS",
        "relay.relay:_LONG_S",
        "relay.read_letters:MOST_BYTES",
    ],
    "the lane of bulk verbs": ["outbox:BULK_ABOVE"],
    "the audit log is sealed": ["audit.sealer:EVERY_S"],
    "denials without an identity": ["audit.unverified_denials:MOST_A_MINUTE"],
    "denied broadcasts": [
        "engine.count_denied_broadcasts:AT_ONCE",
        "records.live_workers:BEAT_S",
        "engine.count_denied_broadcasts:MOST_TARGETS",
        "records.denied_broadcast_reports:WINDOW_S",
    ],
    "findings of `audit verify` that are named": ["audit.verify_findings:EXAMPLES"],
    "retention of outbox, counts and audit log": [
        "relay.retention:EVERY_S",
        "relay.retention:_ROWS_AT_ONCE",
        "relay.retention:_CLOCKS_MAY_DIFFER_S",
    ],
    "an archive of the audit log": [
        "audit.archiver:_ROWS_A_FILE",
        "audit.archiver:_SEALS_A_FILE",
    ],
    "what stays of the audit log in Postgres": ["settings.model:LEAST_AUDIT_DAYS"],
    "gate's beat": ["gate:BEAT_S"],
    "reconcile: grace": ["inspection.search_budget:GRACE_S"],
    "reconcile: budget of time": [
        "reconcile.reconciler:BUDGET_S",
        "reconcile.periodic_check:_BUDGET_S",
    ],
    "reconcile: interval in the relay": ["reconcile.periodic_check:EVERY_S"],
    "reconcile: rows, messages, examples": [
        "reconcile.reconciler:ROWS",
        "reconcile.periodic_check:_MOST_MESSAGES",
        "reconcile.report:EXAMPLES",
    ],
    "messages searched by `explain`": [
        "inspection.queue_position:MOST_SEARCHED",
        "inspection.queue_position:_PIECE",
        "control.explain.read_broker:SEARCH_S",
    ],
    "answers awaited by `explain`": [
        "control.explain.read_facts:ANSWER_S",
        "control.explain.read_postgres:_STATEMENT_MS",
    ],
    "letters per `dlq replay`": ["ops.cli.dlq.replay:LIMIT"],
    "`jobs wait`": ["ops.cli.jobs.wait:DEFAULT_TIMEOUT_S"],
    "workers asked by `queues list` and `check`": ["inspection.queue_counts:_ANSWER_S"],
    "letters counted by `check`": ["ops.cli.checks.dead_letters:_COUNT_MS"],
    "a cause of many lines in a list": ["ops.cli.summary_line:LONGEST"],
    "waiting for the relay's answer": ["ops.cli.dlq.replay_letter:_WAIT_S"],
    "a listing": ["ledger.read:SEARCH_LIMIT"],
    "the beginning of an id": ["control.find_letter_id:MINIMUM_PREFIX"],
    "a reason": [
        "control.operator_reasons:MINIMUM_LENGTH",
        "control.operator_reasons:_MAXIMUM_LENGTH",
    ],
    "a token's lifetime": ["control.tokens:DEFAULT_LIFETIME", "control.tokens:LONGEST_LIFETIME"],
    "the secret before a rotation": [
        "control.tokens:DEFAULT_OVERLAP",
        "control.tokens:LONGEST_OVERLAP",
    ],
    "a retry's wait": ["jobs.retry_policy:LONGEST_DELAY"],
    "an ETA": ["broker.amqp_publisher:LONGEST_WAIT_S"],
    "time limit of a type without one": ["jobs.types:DEFAULT_TIME_LIMIT_S"],
    "drain of `taskyard up`": ["ops.up.up_command:DRAIN_S"],
}


def test_the_page_lists_every_fixed_limit_and_no_other():
    assert set(_limits()) == set(LIMITS)


@pytest.mark.parametrize("row", LIMITS)
def test_a_fixed_limit_is_what_the_code_holds(row):
    documented = [float(n.replace(",", "")) for n in re.findall(r"\d[\d,.]*\d|\d", _limits()[row])]
    assert documented == [_number(place) for place in LIMITS[row]]


def _number(place):
    module, _, name = place.partition(":")
    value = getattr(import_module(f"taskyard.{module}"), name)
    if name == "DEFAULT_OVERLAP":
        return value / timedelta(hours=1)
    if isinstance(value, timedelta):
        return value.days / (7 if name == "AHEAD" else 1)
    if name == "_FORGOTTEN_US":
        return value / 86_400_000_000
    units = {"_MS": 1_000, "_US": 1_000_000}
    return value / units.get(name[-3:], 1)


def test_limits_that_stand_in_a_row_s_reason_are_what_the_code_holds():
    page = PAGE.read_text()
    assert f"waits {_number('broker.redis_delay:_ODD_LIST_WAIT_MS'):g} s" in page
    assert f"after {_number('engine.broker_reconnect:CALM_S'):g} s without a loss" in page


def test_the_page_names_the_oldest_servers_that_check_takes():
    part = PAGE.read_text().partition("## Servers")[2].partition("\n## ")[0]
    documented = dict(re.findall(r"^\| (\w+) \| ([\d.]+) \|$", part, re.MULTILINE))
    python = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    least = {**redis_server._MINIMUM, "RabbitMQ": rabbitmq_server._MINIMUM}
    expected = {name: ".".join(map(str, numbers)) for name, numbers in least.items()}
    expected |= {"Python": python.removeprefix(">="), "PostgreSQL": str(MINIMUM_POSTGRES)}
    assert documented == expected


def test_two_limits_that_the_page_tells_as_one_are_one():
    assert conninfo.CONNECT_TIMEOUT_S == store.redis_client._SOCKET_TIMEOUT_S
    assert letters.LIMIT == ledger.SEARCH_LIMIT
    assert find_job_by_id.MINIMUM_PREFIX == find_letter_id.MINIMUM_PREFIX


def test_the_example_of_a_job_type_file_is_one(tmp_path):
    block = re.search(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert block is not None
    file = tmp_path / "types.yaml"
    file.write_text(block[1])
    catalogue = Catalogue.load(file)
    assert catalogue["send_invoice"].policy.max_retries == 5
    assert yaml.safe_load(block[1])["job_types"]["send_invoice"]["queue"] == "exec"
