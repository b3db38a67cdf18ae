"""`taskyard dlq`: list, show, stats and replay, one verb per file."""

__all__: list[str] = []
