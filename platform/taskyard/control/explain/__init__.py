"""Why a job is where it is, and the commands that would move it."""

from taskyard.control.explain.cause_kinds import CauseKind, Meaning, Server
from taskyard.control.explain.cause_table import CAUSES
from taskyard.control.explain.explain_job import explain
from taskyard.control.explain.explanation import Cause, Explanation

__all__ = ["CAUSES", "Cause", "CauseKind", "Explanation", "Meaning", "Server", "explain"]
