"""What the server does by itself: tell of failures, and call dead what is dead. ``python -m flows.automations``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import timedelta
from urllib.parse import urlsplit
from uuid import UUID

from prefect.blocks.webhook import Webhook
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import StateType
from prefect.events.actions import CallWebhook, ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from prefect.settings import PREFECT_API_URL
from prefect.types import SecretDict
from pydantic import SecretStr

from flows import dvc

TAG = "stylegan-t"
"""Of the deployments in prefect.yaml: what the automations look after. Other flows may be silent for longer."""

HEARTBEAT_SECONDS = 30
"""Between two heartbeats of the runs that are ours."""

SILENT_SECONDS = 3.0 * HEARTBEAT_SECONDS
"""A run that was heard of has crashed when nothing is heard for so long."""

BLOCK = "stylegan-t-failures"
"""The server keeps the address for notifications in a block of this name: such addresses are secrets."""

ZOMBIES = "stylegan-t: runs without a heartbeat have crashed"
UNBORN = "stylegan-t: runs that no process began have crashed"
FAILURES = "stylegan-t: tell of failures"

STARTING_SECONDS = 300.0
"""For a process that a worker starts; containers may rightly wait longer, for a machine or an image."""

_FAILURES = {f"prefect.flow-run.{state}" for state in ("Failed", "Crashed", "TimedOut", "Rejected")}
_PENDING = {f"prefect.flow-run.{state}" for state in ("Pending", "Submitting")}
_GOES_ON = {f"prefect.flow-run.{state}" for state in ("Running", "Cancelling", "Scheduled", "AwaitingConcurrencySlot")}
_ENDS = _FAILURES | {"prefect.flow-run.Completed", "prefect.flow-run.Cancelled"}
_HEARTBEAT = "prefect.flow-run.heartbeat"
_RUNS = ResourceSpecification.model_validate({"prefect.resource.id": "prefect.flow-run.*"})
_OURS = ResourceSpecification.model_validate(
    {"prefect.resource.role": "tag", "prefect.resource.id": f"prefect.tag.{TAG}"}
)
_PROCESS_POOLS = ResourceSpecification.model_validate(
    {"prefect.resource.role": "work-pool", "prefect.work-pool.type": "process"}
)
_PAYLOAD = (
    "{% set message = flow_run.state.message or '' %}"
    """{"text": {{ (flow.name ~ " " ~ flow_run.name ~ ": " ~ flow_run.state.name ~ (" (" ~ message ~ ")" if message)"""
    """ ~ "\\n" ~ (flow_run|ui_url)) | tojson }}}"""
)


def ship(
    client: SyncPrefectClient,
    notify: str | None = None,
    silent_seconds: float = SILENT_SECONDS,
    starting_seconds: float = STARTING_SECONDS,
) -> list[str]:
    """Create the automations, or make them what they should be where they exist; their names.

    One that somebody has switched off stays so.

    Args:
        notify: An http(s) address to which each failure is posted as JSON with one field ``text``, as chat services
            take it. None leaves what is there.
        silent_seconds: A run that has sent heartbeats, and none for so long, has crashed.
        starting_seconds: A run that a worker has taken, and that no process has begun after so long, has crashed.

    Raises:
        ValueError: The address is no http(s) one.
    """
    automations = [zombies(silent_seconds), unborn(starting_seconds)]
    if notify is not None:
        if urlsplit(notify).scheme not in ("http", "https"):
            raise ValueError(f"--notify {notify}: expected an address that begins with http:// or https://")
        headers = SecretDict({"Content-Type": "application/json"})
        block = Webhook(url=SecretStr(notify), headers=headers).save(BLOCK, overwrite=True)
        assert isinstance(block, UUID)
        automations.append(failures(block))
    for automation in automations:
        if there := client.read_automations_by_name(automation.name):
            automation.enabled = there[0].enabled
            client.update_automation(there[0].id, automation)
        else:
            client.create_automation(automation)
    return [automation.name for automation in automations]


def zombies(silent_seconds: float) -> AutomationCore:
    """Calls a run crashed that was alive and has not been heard of since: whoever could have said so is dead."""
    return _crashes(
        ZOMBIES,
        "The run's process or its machine is gone; the next run goes on where this one stopped.",
        "Its heartbeats have stopped: its process is gone.",
        EventTrigger(
            after={_HEARTBEAT},
            expect={_HEARTBEAT, *_ENDS},
            match=_RUNS,
            match_related=_OURS,
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            within=timedelta(seconds=silent_seconds),
        ),
    )


def unborn(starting_seconds: float) -> AutomationCore:
    """Calls a run crashed whose worker was killed before it began: it would hold a place of its pool for ever."""
    return _crashes(
        UNBORN,
        "The worker that took the run is gone; pools of containers are left alone.",
        "No process has begun it: its worker is gone.",
        EventTrigger(
            after=_PENDING,
            expect=_GOES_ON | _ENDS,
            match=_RUNS,
            match_related=[_OURS, _PROCESS_POOLS],
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            within=timedelta(seconds=starting_seconds),
        ),
    )


def _crashes(name: str, description: str, message: str, trigger: EventTrigger) -> AutomationCore:
    action = ChangeFlowRunState(name="Crashed", state=StateType.CRASHED, message=message, force=False)
    return AutomationCore(name=name, description=description, trigger=trigger, actions=[action])


def failures(webhook: UUID) -> AutomationCore:
    """Posts what failed, why, and where to look, to a webhook block."""
    return AutomationCore(
        name=FAILURES,
        description=f"The address is in the block webhook/{BLOCK}.",
        trigger=EventTrigger(
            expect=_FAILURES,
            match=_RUNS,
            match_related=_OURS,
            for_each={"prefect.resource.id"},
            posture=Posture.Reactive,
        ),
        actions=[CallWebhook(block_document_id=webhook, payload=_PAYLOAD)],
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 2 for what was asked wrongly."""
    parser = argparse.ArgumentParser(
        prog="python -m flows.automations",
        description="Create or update the server's automations: runs whose process is gone crash, failures are told.",
    )
    parser.add_argument("--notify", metavar="URL", help="post failures there, as JSON with a field `text`")
    options = parser.parse_args(arguments)
    try:
        if not PREFECT_API_URL.value():
            raise ValueError("PREFECT_API_URL is not set: automations live in a server; name it, or run flows.up")
        with get_client(sync_client=True) as client:
            for name in ship(client, options.notify):
                print(name)
    except ValueError as error:
        print(error, file=sys.stderr)
        return dvc.SETTINGS
    return 0


if __name__ == "__main__":
    sys.exit(main())
