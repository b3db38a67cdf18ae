"""`taskyard queues`: what waits where, and who consumes it."""

__all__: list[str] = []
