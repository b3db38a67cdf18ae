"""The client that services use: `from taskyard.client import Taskyard`."""

from taskyard.client.check_request import EnqueueOptions, EnqueueRequest
from taskyard.client.job_handle import JobHandle
from taskyard.client.taskyard import Taskyard

__all__ = ["EnqueueOptions", "EnqueueRequest", "JobHandle", "Taskyard"]
