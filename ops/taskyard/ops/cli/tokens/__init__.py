"""`taskyard tokens`: create, list, rotate and revoke, one verb per file."""

__all__: list[str] = []
