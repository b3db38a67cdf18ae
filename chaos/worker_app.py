"""`celery -A chaos.worker_app worker`: the app of a worker, made from its environment.

Alone, because the driver makes apps of its own from `chaos.app`, without an environment.
"""

from __future__ import annotations

from chaos import log_levels
from chaos.app import Configuration, make_app

__all__ = ["app", "log_levels"]

app = make_app(Configuration.read())
