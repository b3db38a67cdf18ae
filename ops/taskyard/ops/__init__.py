"""What operators and developers run: the command line, the HTTP API and the embedded servers."""

__all__: list[str] = []
