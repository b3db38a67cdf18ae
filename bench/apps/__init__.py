"""One module a library: its app for the worker, `send` for the client.

Each runs in an environment of its own, so it imports nothing of this package but `work`.
"""

__all__: list[str] = []
