"""Install Taskyard into an existing Celery app.

Use it as `from taskyard.install import install; install(app)`.
"""

import taskyard.engine  # noqa: F401 - an older Celery is refused before anything of it is imported
from taskyard.install.app_broker import AppBroker
from taskyard.install.app_queues import Place, Places
from taskyard.install.broker_choice import strays_to
from taskyard.install.install_plan import Plan, TaskPlan, plan
from taskyard.install.installer import install
from taskyard.install.modes import Mode
from taskyard.install.operator_publisher import FleetPublisher

__all__ = [
    "AppBroker",
    "FleetPublisher",
    "Mode",
    "Place",
    "Places",
    "Plan",
    "TaskPlan",
    "install",
    "plan",
    "strays_to",
]
