"""One attempt as a pipeline: begin, decode, run, judge, finish; each a named step."""

from taskyard.runner.failures import describe_failure, failure_here
from taskyard.runner.judge import Rules, judge
from taskyard.runner.pipeline import Runner
from taskyard.runner.retry import Unreachable
from taskyard.runner.signals import JobDeferred, JobIdReused, JobRetrying, JobSkipped

__all__ = [
    "JobDeferred",
    "JobIdReused",
    "JobRetrying",
    "JobSkipped",
    "Rules",
    "Runner",
    "Unreachable",
    "describe_failure",
    "failure_here",
    "judge",
]
