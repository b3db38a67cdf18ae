"""`taskyard users`: grant, list and revoke, one verb a file."""

__all__: list[str] = []
