"""The job records in Redis as Celery's result backend."""

from taskyard.backend.record_backend import RecordBackend

__all__ = ["RecordBackend"]
