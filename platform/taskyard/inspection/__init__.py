"""Where messages wait, who holds them, and who reads the queues; nothing here changes anything."""

__all__: list[str] = []
