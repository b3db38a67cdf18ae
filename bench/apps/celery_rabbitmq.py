"""Bare Celery on RabbitMQ: every publication confirmed, everything else as on Redis."""

from __future__ import annotations

from bench.apps.celery_bare import app, send
from bench.apps.work import broker_url

__all__ = ["app", "send"]

app.conf.update(
    broker_url=broker_url(),
    broker_transport_options={"confirm_publish": True},
)
