"""The rivals' environments, built once under build/bench-envs."""

from __future__ import annotations

import subprocess
import venv
from pathlib import Path

from bench.contenders import Contender

__all__ = ["prepare"]

_WITHIN_S = 300.0


def prepare(contender: Contender, folder: Path) -> None:
    """Install a contender's packages, unless exactly these are installed already."""
    home = folder / contender.app
    stamp = home / "installed.txt"
    wanted = "\n".join(contender.packages)
    if not contender.packages or (stamp.exists() and stamp.read_text("utf-8") == wanted):
        return
    venv.create(home, with_pip=True, clear=True)
    argv = [str(home / "bin" / "python"), "-m", "pip", "install", "--quiet", *contender.packages]
    subprocess.run(argv, check=True, timeout=_WITHIN_S, stderr=subprocess.DEVNULL)  # noqa: S603 - our own list
    stamp.write_text(wanted, "utf-8")
