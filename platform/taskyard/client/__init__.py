"""What services use: `from taskyard.client import Taskyard`."""

from taskyard.client.handle import JobHandle
from taskyard.client.requests import EnqueueOptions, EnqueueRequest
from taskyard.client.taskyard import Taskyard

__all__ = ["EnqueueOptions", "EnqueueRequest", "JobHandle", "Taskyard"]
