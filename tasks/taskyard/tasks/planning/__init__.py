"""Convert Gherkin to Recorder flows with a fixed table of phrases."""

from taskyard.tasks.planning.compile import make_plan
from taskyard.tasks.planning.phrases import PHRASES

__all__ = ["PHRASES", "make_plan"]
