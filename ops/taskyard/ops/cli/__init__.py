"""The command line: `taskyard NOUN VERB`."""

__all__: list[str] = []
