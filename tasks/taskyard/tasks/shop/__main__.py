"""`python -m taskyard.tasks.shop --port 8000 --fault-file broken`: run the shop until Ctrl-C."""

from __future__ import annotations

import argparse
from pathlib import Path

from taskyard.tasks.shop.faults import Fault
from taskyard.tasks.shop.server import ShopServer


def main() -> None:
    """Serve the shop on the loopback address and print where."""
    parser = argparse.ArgumentParser(prog="python -m taskyard.tasks.shop", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 (the default) takes a free one")
    faults = ", ".join(Fault)
    parser.add_argument(
        "--fault-file",
        type=Path,
        help=f"while this file exists the shop is broken; its text names how: {faults}",
    )
    chosen = parser.parse_args()
    with ShopServer(chosen.port, chosen.fault_file) as shop:
        print(shop.url, flush=True)  # noqa: T201 - this is the command's answer
        try:
            shop.wait()
        except KeyboardInterrupt:
            return


if __name__ == "__main__":
    main()
