"""The worker's engine: tasks, requests and a consumer that keep Taskyard's promises."""

from taskyard.wire.celery_version import check_celery

__all__: list[str] = []

check_celery()  # before its modules import what an older Celery lacks
