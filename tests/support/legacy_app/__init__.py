"""An existing Celery app, as its owners wrote it; `mode` decides whether Taskyard is installed."""
