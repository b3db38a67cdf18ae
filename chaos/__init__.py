"""The chaos suite: storms over a working yard, and an auditor that counts what is left.

`make chaos` runs it; `tests/chaos/test_storms.py` is its short form. It starts servers and workers
of its own on loopback, and ends only what it started.
"""

__all__: list[str] = []
