"""What `taskyard check` looks at, one subject a file."""

__all__: list[str] = []
