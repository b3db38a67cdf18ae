"""The worker: a Celery app whose tasks, requests and consumer keep Taskyard's promises."""

__all__: list[str] = []
