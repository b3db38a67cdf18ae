"""The record as Celery's result backend."""

from taskyard.backend.record_backend import RecordBackend, SentinelRecordBackend

__all__ = ["RecordBackend", "SentinelRecordBackend"]
