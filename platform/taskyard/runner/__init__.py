"""Run one attempt of a job as a pipeline of named steps: begin, decode, run, judge, finish."""

from taskyard.runner.attempt_pipeline import Runner
from taskyard.runner.child_exceptions import (
    JobDeferred,
    JobForwarded,
    JobIdReused,
    JobRetrying,
    JobSkipped,
    JobSwitchedOff,
)
from taskyard.runner.exception_facts import describe_failure, failure_here
from taskyard.runner.redis_retry import Unreachable
from taskyard.runner.retry_decision import Rules, judge

__all__ = [
    "JobDeferred",
    "JobForwarded",
    "JobIdReused",
    "JobRetrying",
    "JobSkipped",
    "JobSwitchedOff",
    "Rules",
    "Runner",
    "Unreachable",
    "describe_failure",
    "failure_here",
    "judge",
]
