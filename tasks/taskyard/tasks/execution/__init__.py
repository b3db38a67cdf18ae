"""Run a plan against a site, behind one driver interface."""

from taskyard.tasks.execution.browserless_driver import BrowserlessDriver
from taskyard.tasks.execution.driver import Driver, Sighting, Wanted
from taskyard.tasks.execution.run import Watch, run_plan

__all__ = ["BrowserlessDriver", "Driver", "Sighting", "Wanted", "Watch", "run_plan"]
