"""`taskyard users`: grant, list and revoke, one verb per file."""

__all__: list[str] = []
