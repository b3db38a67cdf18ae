"""The worker: a Celery app with Taskyard's tasks, requests and consumer."""

__all__: list[str] = []
