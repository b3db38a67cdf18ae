"""`make bench`: Taskyard beside bare Celery and other job libraries, in one run, alternating."""

__all__: list[str] = []
