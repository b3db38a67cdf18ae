"""`taskyard kill`: the kill switch on and off, one verb per file."""

__all__: list[str] = []
