"""The steps of the demonstration: plan, run, locate; break, see, repair, replay.

The result of each step is read back.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Any, Final

from sqlalchemy import Engine

from taskyard.client import JobHandle, Taskyard
from taskyard.clock import SYSTEM_CLOCK
from taskyard.control import letters
from taskyard.control.authenticate_operator import local_identity
from taskyard.jobs.states import LIVE, State
from taskyard.ops.cli.dlq.listing import letter_table
from taskyard.ops.cli.dlq.replay_letter import Replay, ReplayRequest, ReplayStatus, replay_one
from taskyard.ops.cli.ids import short_id
from taskyard.ops.demo.demo_jobs import Cast, Role
from taskyard.ops.demo.demo_servers import Stage
from taskyard.ops.demo.failure import DemoFailed
from taskyard.ops.demo.screen import Screen

__all__ = ["Story"]

_REASON: Final = "The shop's button has its name again, the order can be placed"
_JOB_S: Final = 30.0
_MIRROR_S: Final = 10.0


class Story:
    """One run of the demonstration.

    Its steps are called in the order in which they are written here.
    """

    def __init__(self, stage: Stage, screen: Screen, yard: Taskyard, engine: Engine) -> None:
        self.stage, self.screen, self.yard, self.engine = stage, screen, yard, engine
        self.cast = Cast()

    def plan(self) -> Any:
        """Make a plan from a feature."""
        self.screen.scene("1. A feature file becomes a plan (queue plan).")
        feature = files("taskyard.ops.demo").joinpath("demo.feature").read_text("utf-8")
        payload = {"feature": feature, "base_url": self.stage.shop.url, "file": "demo.feature"}
        planning = self._enqueue("plan", "plan_generation", payload)
        self._await("the plan", planning, State.COMPLETED)
        plan = planning.result(0)
        scenarios = ", ".join(str(flow["scenario"]) for flow in plan["flows"])
        self.screen.say(f"   planned: {scenarios}")
        return plan

    def run(self, plan: Any) -> None:
        """Run the plan against the shop, while another queue makes locators for its elements."""
        self.screen.scene("2. The plan runs (queue exec), locators are made (queue locator).")
        running = self._enqueue("run", "test_execution", plan)
        page = {"url": f"{self.stage.shop.url}/catalogue"}
        locating = self._enqueue("locate", "batch_locator_generation", page)
        self._await("the run", running, State.COMPLETED)
        self._await("the locators", locating, State.COMPLETED)
        report, batch = running.result(0), locating.result(0)
        self.screen.say(
            f"   the run {report['outcome']}: {report['passed']} of {len(report['flows'])} "
            f"scenarios; {len(batch['elements'])} elements have locators"
        )

    def fail(self, plan: Any) -> JobHandle:
        """Break the shop, so that the same plan ends as a dead letter."""
        self.screen.scene("3. The shop renames its button, and the same plan runs again.")
        self.stage.shop.break_checkout()
        doomed = self._enqueue("run again", "test_execution", plan)
        self._await("the dead letter", doomed, State.DEAD_LETTERED)
        return doomed

    def find(self, doomed: JobHandle) -> dict[str, Any]:
        """Show the letter as operators see it."""
        wanted = letters.Filters(original_request_id=doomed.job_id)
        found: list[dict[str, Any]] = []

        def mirrored() -> bool:
            found[:] = letters.list(self.engine, wanted)
            return bool(found)

        self.stage.until("the letter in Postgres", mirrored, _MIRROR_S)
        self.screen.scene("4. Operators see it with its cause: $ taskyard dlq list")
        self.screen.show(letter_table(found, SYSTEM_CLOCK.now()))
        return found[0]

    def replay(self, letter: dict[str, Any], doomed: JobHandle) -> Replay:
        """Repair the cause and replay the letter, by the verb that operators use."""
        self.stage.shop.repair()
        command = f'taskyard dlq replay {short_id(letter["id"])} --reason "{_REASON}"'
        self.screen.scene(f"5. The button is repaired, the letter replayed: $ {command}")
        request = ReplayRequest(local_identity(self.yard.settings), _REASON)
        replay = replay_one(self.engine, str(letter["id"]), request)
        self.screen.say(f"   {replay.verdict} {replay.why}".rstrip())
        if replay.verdict is ReplayStatus.REFUSED:
            raise DemoFailed(f"the replay was refused: {replay.why}", self.stage.log)
        self._await("the replayed job's completion", doomed, State.COMPLETED)
        report = doomed.result(0)
        scenarios = f"{report['passed']} of {len(report['flows'])} scenarios"
        self.screen.say(f"   the same job {report['outcome']}: {scenarios}")
        return replay

    def _enqueue(self, name: str, job_type: str, payload: Any) -> JobHandle:
        handle = self.yard.enqueue(job_type, payload)
        self.cast.roles.append(Role(name, handle))
        return handle

    def _await(self, what: str, handle: JobHandle, wanted: State) -> None:
        """Wait for one state; any other end is reported at once."""
        others = frozenset(State) - LIVE - {State.NONE, wanted} | (
            {State.DEAD_LETTERED} - {wanted} if wanted is State.COMPLETED else frozenset()
        )

        def reached() -> bool:
            record = handle.record()
            # After the check that may end the wait, so that the last state is shown too.
            self.screen.update(self.cast)
            replaying = wanted is State.COMPLETED and record.generation > 0
            if record.state in others and not replaying:
                cause = record.cause.get("message", "no cause is known")
                raise DemoFailed(f"{what}: the job is {record.state} ({cause})", self.stage.log)
            return record.state is wanted

        self.stage.until(what, reached, _JOB_S)
