"""`taskyard types`: how each job type is treated, and where that is written."""

__all__: list[str] = []
