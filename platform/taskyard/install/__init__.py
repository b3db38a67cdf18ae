"""Install Taskyard into an existing Celery app.

Use it as `from taskyard.install import install; install(app)`.
"""

import taskyard.engine  # noqa: F401 - an older Celery is refused before anything of it is imported
from taskyard.install.announced_queues import AnnouncedQueue, AnnouncedQueues
from taskyard.install.any_queue_publisher import AnyQueuePublisher
from taskyard.install.app_broker import AppBroker
from taskyard.install.install_plan import Plan, TaskPlan, plan
from taskyard.install.installer import install
from taskyard.install.modes import Mode
from taskyard.install.publication_broker import strays_to

__all__ = [
    "AnnouncedQueue",
    "AnnouncedQueues",
    "AnyQueuePublisher",
    "AppBroker",
    "Mode",
    "Plan",
    "TaskPlan",
    "install",
    "plan",
    "strays_to",
]
