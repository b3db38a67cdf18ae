"""Drop-in for an existing Celery app: `from taskyard.install import install; install(app)`."""

from taskyard.install.installer import install
from taskyard.install.modes import Mode
from taskyard.install.plan import TaskPlan, plan

__all__ = ["Mode", "TaskPlan", "install", "plan"]
