"""`taskyard dlq`: list, show, stats and replay, one verb a file."""

__all__: list[str] = []
