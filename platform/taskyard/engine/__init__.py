"""The worker's engine: tasks, requests and a consumer that keep Taskyard's promises."""

__all__: list[str] = []
