"""`taskyard demo`: the whole platform in under a minute; nothing is left behind."""

from __future__ import annotations

import signal

from taskyard.ops.cli.console import print_json
from taskyard.ops.cli.options import Json
from taskyard.ops.demo.demo_servers import Stage, open_stage
from taskyard.ops.demo.demo_steps import Story
from taskyard.ops.demo.screen import Screen, screen_for
from taskyard.ops.demo.summary import Summary, read_summary

__all__ = ["command"]

_MIRROR_S = 10.0


def command(json: Json = False) -> None:
    """Show a job's way, a failure and its repair, in under a minute.

    It starts servers and workers of its own in a temporary folder, stops them at the end, and
    fails if any step does not happen in time.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # cleans up as after Ctrl-C
    screen = screen_for(silent=json)
    with open_stage() as stage:
        with screen:
            summary = _play(stage, screen)
        _show_summary(screen, summary)
    elapsed_s = stage.elapsed_s
    screen.say(f"All of this took {elapsed_s:.1f} s, and nothing is left behind.", "bold green")
    screen.say("Next: taskyard up")
    if json:
        print_json({**summary.document(), "elapsed_s": round(elapsed_s, 1)})


def _play(stage: Stage, screen: Screen) -> Summary:
    screen.say(
        "Starting PostgreSQL, Valkey, mirror, relay and four workers here, for this demonstration."
    )
    yard, engine = stage.connect()
    try:
        screen.say(
            f"   they answer after {stage.elapsed_s:.1f} s; the sample shop is {stage.shop.url}"
        )
        return _play_story(Story(stage, screen, yard, engine))
    finally:
        engine.dispose()
        yard.close()


def _play_story(story: Story) -> Summary:
    plan = story.plan()
    story.run(plan)
    doomed = story.fail(plan)
    letter = story.find(doomed)
    replay = story.replay(letter, doomed)
    seen: list[Summary] = []

    def mirrored() -> bool:
        seen[:] = [read_summary(story.engine, story.cast, replay.letter, str(replay.request_id))]
        return seen[0].complete

    story.stage.until("the ledger's and the audit log's last rows", mirrored, _MIRROR_S)
    return seen[0]


def _show_summary(screen: Screen, summary: Summary) -> None:
    for thing in (summary.jobs_table(), summary.audit_table()):
        screen.say("")
        screen.show(thing)
    screen.say("")
    screen.say("Stopping the servers and processes.")
