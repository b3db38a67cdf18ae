"""`taskyard keys`: the key ring, and private keys."""

__all__: list[str] = []
