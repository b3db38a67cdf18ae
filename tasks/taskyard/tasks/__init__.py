"""The built-in job handlers: plans from features, test runs, locators and healing.

A client that only enqueues imports `taskyard.tasks.models`; workers load `taskyard.tasks.handlers`.
"""

__all__: list[str] = []
