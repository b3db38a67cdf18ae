"""`taskyard jobs`: enqueue, list, show and wait, one verb a file."""

__all__: list[str] = []
