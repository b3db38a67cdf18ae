"""Disks without room: a small file system for a server's data, and RabbitMQ's own alarm."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Final

from chaos.faults import Faults
from taskyard.ops.embedded.data_folder import Home

__all__ = ["SmallDisk", "disk_alarm", "fill", "fill_up"]

_FULL_S: Final = (2.0, 7.0)
_CHUNK: Final = 64 * 1024 * 1024
# No disk has as much free, so RabbitMQ takes its own for full.
_ALWAYS_FULL: Final = "1000000GB"
_USUAL: Final = "50MB"


def _place(folder: Path, server: str) -> Path:
    return folder / "home" / "postgres" if server == "postgres" else folder / "redis"


class SmallDisk:
    """A file system in memory for `server`'s data in the cluster's `folder`.

    1 GiB: 20,000 jobs with their logs fit in, and filling it takes a moment. `reason` says why
    there can be none.
    """

    SIZE: Final = "1g"

    def __init__(self, folder: Path, server: str) -> None:
        self._place, self.reason = _place(folder, server), ""
        if server == "postgres":
            # The servers' home refuses a folder that holds something before it was opened.
            Home.open(folder / "home")

    def mount(self) -> bool:
        """Whether it stands."""
        self._place.mkdir(parents=True, exist_ok=True)
        options = f"size={self.SIZE},mode=0700,uid={os.geteuid()},gid={os.getegid()}"
        words = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self._place)]
        try:
            done = subprocess.run(words, capture_output=True, text=True, check=False)  # noqa: S603 - fixed words
        except OSError as error:
            self.reason = str(error)
            return False
        self.reason = done.stderr.strip()
        return done.returncode == 0

    def unmount(self) -> None:
        """Take it away."""
        subprocess.run(["umount", str(self._place)], capture_output=True, check=False)  # noqa: S603, S607 - fixed words


def fill(server: str) -> Callable[[Faults], None]:
    """The file system of a server's data has no byte left for a while."""

    def inject(faults: Faults) -> None:
        ballast = _place(faults.cluster.folder, server) / "ballast"
        try:
            fill_up(ballast)
            faults.hold(*_FULL_S)
        finally:
            ballast.unlink()
        # PostgreSQL ends where not even its log has room; a supervisor starts it again.
        faults.cluster.mend()
        faults.over(f"the disk of {server} full")

    return inject


def fill_up(ballast: Path) -> int:
    """Fill the file system of `ballast` until it takes no further byte; how many it took.

    Others write and delete there meanwhile, so that nobody can ask for all that is free at once:
    what is asked for is halved until one byte is refused.
    """
    descriptor = os.open(ballast, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        taken, wanted = 0, _CHUNK
        while wanted:
            if _allocate(descriptor, taken, wanted):
                taken += wanted
            else:
                wanted //= 2
        return taken
    finally:
        os.close(descriptor)


def _allocate(descriptor: int, start: int, count: int) -> bool:
    """Take `count` more bytes; False where they are not there."""
    try:
        os.posix_fallocate(descriptor, start, count)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        return False
    return True


def disk_alarm(faults: Faults) -> None:
    """RabbitMQ takes its disk for full: it stops reading from whoever publishes."""
    rabbitmq = faults.cluster.rabbitmq
    assert rabbitmq is not None
    rabbitmq.ctl("set_disk_free_limit", _ALWAYS_FULL)
    try:
        faults.hold(*_FULL_S)
    finally:
        rabbitmq.ctl("set_disk_free_limit", _USUAL)
    faults.over("the disk of rabbitmq full (its alarm)")
