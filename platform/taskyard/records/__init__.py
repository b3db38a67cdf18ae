"""Records: the live state of every job in Redis, changed only by scripts that follow the table."""

from taskyard.records.admissions import SCRIPTS_AHEAD
from taskyard.records.answers import (
    OWN_ID,
    Admission,
    Admitted,
    BeginAnswer,
    Decided,
    Done,
    Ended,
    Held,
    NotHeld,
    Publication,
    Replayed,
    Requeue,
    Reused,
    Run,
    Stale,
    Superseded,
    UnknownHistory,
    WithoutRun,
    Witnessed,
)
from taskyard.records.ends import End
from taskyard.records.fleet import BEAT_S, GONE_S, Fleet, Member, left_by_dead, lives
from taskyard.records.keys import Keys
from taskyard.records.record import Record
from taskyard.records.records import Records

__all__ = [
    "BEAT_S",
    "GONE_S",
    "OWN_ID",
    "SCRIPTS_AHEAD",
    "Admission",
    "Admitted",
    "BeginAnswer",
    "Decided",
    "Done",
    "End",
    "Ended",
    "Fleet",
    "Held",
    "Keys",
    "Member",
    "NotHeld",
    "Publication",
    "Record",
    "Records",
    "Replayed",
    "Requeue",
    "Reused",
    "Run",
    "Stale",
    "Superseded",
    "UnknownHistory",
    "WithoutRun",
    "Witnessed",
    "left_by_dead",
    "lives",
]
