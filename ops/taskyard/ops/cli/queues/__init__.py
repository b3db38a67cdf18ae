"""`taskyard queues`: how many jobs wait in each queue, and how many workers consume it."""

__all__: list[str] = []
