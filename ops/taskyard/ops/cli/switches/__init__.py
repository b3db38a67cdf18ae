"""`taskyard switches`: all pauses and kill switches, and how every verb turns one."""

__all__: list[str] = []
