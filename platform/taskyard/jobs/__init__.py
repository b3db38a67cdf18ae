"""Job types, states, policies, handlers and their context: the terms of the domain."""

from taskyard.jobs.attempt_context import JobContext
from taskyard.jobs.catalogue import Catalogue
from taskyard.jobs.handler_registry import job, registry
from taskyard.jobs.retry_policy import Category, RetryPolicy
from taskyard.jobs.states import Event, State
from taskyard.jobs.types import JobType

__all__ = [
    "Catalogue",
    "Category",
    "Event",
    "JobContext",
    "JobType",
    "RetryPolicy",
    "State",
    "job",
    "registry",
]
