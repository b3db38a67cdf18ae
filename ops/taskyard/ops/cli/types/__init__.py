"""`taskyard types`: the policy of each job type, and where it is written."""

__all__: list[str] = []
