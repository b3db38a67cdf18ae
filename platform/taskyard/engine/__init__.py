"""The worker's engine: Taskyard's tasks, requests and consumer for Celery."""

from taskyard.engine.require_celery_version import check_celery

__all__: list[str] = []

check_celery()  # before its modules import names that an older Celery lacks
