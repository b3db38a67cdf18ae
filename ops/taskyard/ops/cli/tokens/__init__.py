"""`taskyard tokens`: create, list, rotate and revoke, one verb a file."""

__all__: list[str] = []
