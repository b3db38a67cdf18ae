"""`taskyard jobs`: enqueue, list, show and wait, one verb per file."""

__all__: list[str] = []
