"""`taskyard demo`: a job's way, a failure, its repair and its replay, on real servers."""

__all__: list[str] = []
