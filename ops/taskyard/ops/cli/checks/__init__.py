"""The subjects that `taskyard check` examines, one per file."""

__all__: list[str] = []
