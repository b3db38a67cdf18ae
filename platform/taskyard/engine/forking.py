"""Memory of the pool's processes: what they share with the main process stays shared."""

from __future__ import annotations

import gc

from celery import signals

__all__ = ["keep_pages_shared"]


def keep_pages_shared() -> None:
    """Before the first fork of a pool, take what lives out of the garbage collector's hands.

    A collection writes into every object that it looks at, so each child would soon copy every
    page of the modules that it inherited; here that was a fifth of a worker's memory.
    """
    signals.worker_before_create_process.connect(
        _freeze, weak=False, dispatch_uid="taskyard.engine.forking"
    )


def _freeze(**_: object) -> None:
    # Once: what lives when a later child replaces another is the work of the moment.
    if gc.get_freeze_count() == 0:
        gc.collect()
        gc.freeze()
