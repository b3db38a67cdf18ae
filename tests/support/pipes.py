"""What lies unread in the pipes of another process."""

from __future__ import annotations

import fcntl
import os
import stat
import struct
import termios
from pathlib import Path

__all__ = ["reads_a_pipe", "unread_bytes"]


def unread_bytes(pid: int) -> int:
    """Bytes that wait in the pipes that the process reads."""
    return sum(_unread(link) for link in Path(f"/proc/{pid}/fd").iterdir())


def reads_a_pipe(pid: int) -> bool:
    """Whether the process sleeps in the kernel until something is written to a pipe."""
    return "pipe_read" in Path(f"/proc/{pid}/wchan").read_text("ascii")


def _unread(link: Path) -> int:
    try:
        # The link's own mode tells for what the process opened it.
        if not stat.S_ISFIFO(link.stat().st_mode) or not link.lstat().st_mode & stat.S_IRUSR:
            return 0
        fd = os.open(link, os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError:
        return 0
    try:
        return int(struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, b"\0" * 4))[0])
    finally:
        os.close(fd)
