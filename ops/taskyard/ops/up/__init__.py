"""`taskyard up`: the whole platform on one machine, until Ctrl-C."""

__all__: list[str] = []
