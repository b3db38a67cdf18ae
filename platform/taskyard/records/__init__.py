"""Records: the live state of every job in Redis; only scripts with the state table change it."""

from taskyard.records.bulk_admission import SCRIPTS_AHEAD
from taskyard.records.bulk_states import End
from taskyard.records.job_keys import Keys
from taskyard.records.job_record import Record
from taskyard.records.live_workers import BEAT_S, GONE_S, Fleet, Member, left_by_dead, lives
from taskyard.records.operator_verbs import OperatorVerbs, VerbTarget
from taskyard.records.records import Records
from taskyard.records.script_replies import (
    OWN_ID,
    Admission,
    Admitted,
    BeginAnswer,
    CancelRequested,
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
    VerbApplied,
    VerbRefused,
    WithoutRun,
    Witnessed,
)

__all__ = [
    "BEAT_S",
    "GONE_S",
    "OWN_ID",
    "SCRIPTS_AHEAD",
    "Admission",
    "Admitted",
    "BeginAnswer",
    "CancelRequested",
    "Decided",
    "Done",
    "End",
    "Ended",
    "Fleet",
    "Held",
    "Keys",
    "Member",
    "NotHeld",
    "OperatorVerbs",
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
    "VerbApplied",
    "VerbRefused",
    "VerbTarget",
    "WithoutRun",
    "Witnessed",
    "left_by_dead",
    "lives",
]
