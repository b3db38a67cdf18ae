"""The app's module, named on the command line of its workers and its beat."""

from __future__ import annotations

import json
import os

from celery import Celery
from kombu import Exchange, Queue
from kombu.common import Broadcast

from taskyard.install import install

MODE = os.environ.get("LEGACY_MODE", "none")
PREFIX = os.environ.get("LEGACY_PREFIX", "legacy")
WORK = f"{PREFIX}.work"
TOPIC = f"{PREFIX}.orders"
# As Celery's guide has it for quorum queues, so that a countdown waits at RabbitMQ natively.
QUORUM = bool(os.environ.get("LEGACY_QUORUM"))
ARGUMENTS = {"x-queue-type": "quorum"} if QUORUM else None
# A fanout exchange, of which every worker has a queue of its own.
EVERYWHERE = f"{PREFIX}.everywhere"
BROADCAST = bool(os.environ.get("LEGACY_BROADCAST"))

OPTIONS = json.loads(os.environ.get("LEGACY_OPTIONS", "{}"))
OF_RESULTS = {name: OPTIONS[name] for name in ("global_keyprefix",) if name in OPTIONS}

app = Celery("legacy", broker=os.environ["LEGACY_BROKER"], backend=os.environ.get("LEGACY_BACKEND"))
app.conf.update(
    task_default_queue=WORK,
    task_queues=[
        Queue(WORK, Exchange(f"{PREFIX}.all", type="topic"), WORK, queue_arguments=ARGUMENTS)
        if QUORUM
        else Queue(WORK),
        Queue(
            TOPIC,
            Exchange(f"{PREFIX}.shop", type="topic"),
            routing_key="order.#",
            queue_arguments=ARGUMENTS,
        ),
        *([Broadcast(EVERYWHERE)] if BROADCAST else []),
    ],
    task_routes={"legacy.everywhere": {"queue": EVERYWHERE}} if BROADCAST else None,
    task_acks_late=bool(os.environ.get("LEGACY_ACKS_LATE")),
    result_expires=600,
    result_extended=True,
    worker_prefetch_multiplier=1,
    worker_send_task_events=True,
    broker_connection_retry_on_startup=True,
    broker_transport_options={"visibility_timeout": 30, **OPTIONS},
    result_backend_transport_options=OF_RESULTS,
    broker_use_ssl=json.loads(os.environ.get("LEGACY_TLS", "null")),
    accept_content=["json", "yaml"],
    beat_schedule={
        "tick": {"task": "legacy.tick", "schedule": 1.0, "options": {"expires": 30}},
    },
)
if MODE != "none":
    install(
        app,
        mode=MODE,
        tasks={"legacy.*watched": "observe", "legacy.left_alone": "off"},
        transport={"": None, "own": True, "kombu": False}[os.environ.get("LEGACY_TRANSPORT", "")],
        admit=bool(os.environ.get("LEGACY_ADMIT")),
    )

from support.legacy_app import tasks  # noqa: E402, F401 - registered where Celery apps do it
