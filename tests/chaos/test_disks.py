"""A disk that a storm fills is full, whoever else writes to it at that moment."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from chaos.disks import SmallDisk, fill_up


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    small = SmallDisk(tmp_path, "redis")
    if not small.mount():
        assert os.environ.get("CI") != "true", small.reason
        pytest.skip(small.reason)
    yield tmp_path / "redis"
    small.unmount()


def refuses_a_byte(folder: Path) -> bool:
    descriptor = os.open(folder / "other", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        os.write(descriptor, b"x")
    except OSError as error:
        return error.errno == errno.ENOSPC
    finally:
        os.close(descriptor)
    return False


def test_a_filled_disk_takes_no_further_byte_and_all_of_it_comes_back(disk: Path) -> None:
    (disk / "other").touch()
    free = os.statvfs(disk).f_bavail
    assert fill_up(disk / "ballast") > 0
    assert os.statvfs(disk).f_bavail == 0
    assert refuses_a_byte(disk)
    (disk / "ballast").unlink()
    assert os.statvfs(disk).f_bavail == free


def test_a_disk_that_is_full_already_is_no_error(disk: Path) -> None:
    fill_up(disk / "first")
    assert fill_up(disk / "second") == 0


def test_a_disk_that_a_server_writes_to_meanwhile_is_filled_all_the_same(disk: Path) -> None:
    stop = threading.Event()

    def write() -> None:
        descriptor = os.open(disk / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        while not stop.is_set():
            try:
                os.write(descriptor, b"y" * 100_000)
            except OSError:
                continue
        os.close(descriptor)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        fill_up(disk / "ballast")
        assert refuses_a_byte(disk)
    finally:
        stop.set()
        writer.join()
