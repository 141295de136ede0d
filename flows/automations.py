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

SILENT_SECONDS = 90.0
"""Three heartbeats of the deployments in prefect.yaml."""

BLOCK = "stylegan-t-failures"
"""The server keeps the address for notifications in a block of this name: such addresses are secrets."""

ZOMBIES = "stylegan-t: runs without a heartbeat have crashed"
FAILURES = "stylegan-t: tell of failures"

_FAILURES = {f"prefect.flow-run.{state}" for state in ("Failed", "Crashed", "TimedOut", "Rejected")}
_ENDS = _FAILURES | {"prefect.flow-run.Completed", "prefect.flow-run.Cancelled"}
_HEARTBEAT = "prefect.flow-run.heartbeat"
_RUNS = ResourceSpecification.model_validate({"prefect.resource.id": "prefect.flow-run.*"})
_OURS = ResourceSpecification.model_validate(
    {"prefect.resource.role": "tag", "prefect.resource.id": f"prefect.tag.{TAG}"}
)
_PAYLOAD = (
    "{% set message = flow_run.state.message or '' %}"
    """{"text": {{ (flow.name ~ " " ~ flow_run.name ~ ": " ~ flow_run.state.name ~ (" (" ~ message ~ ")" if message)"""
    """ ~ "\\n" ~ (flow_run|ui_url)) | tojson }}}"""
)


def ship(client: SyncPrefectClient, notify: str | None = None, silent_seconds: float = SILENT_SECONDS) -> list[str]:
    """Create the automations, or make them what they should be where they exist; their names.

    One that somebody has switched off stays so.

    Args:
        notify: An http(s) address to which each failure is posted as JSON with one field ``text``, as chat services
            take it. None leaves what is there.
        silent_seconds: A run that has sent heartbeats, and none for so long, has crashed.

    Raises:
        ValueError: The address is no http(s) one.
    """
    automations = [zombies(silent_seconds)]
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
    message = "Its heartbeats have stopped: its process is gone."
    return AutomationCore(
        name=ZOMBIES,
        description="The run's process or its machine is gone; the next run goes on where this one stopped.",
        trigger=EventTrigger(
            after={_HEARTBEAT},
            expect={_HEARTBEAT, *_ENDS},
            match=_RUNS,
            match_related=_OURS,
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            within=timedelta(seconds=silent_seconds),
        ),
        actions=[ChangeFlowRunState(name="Crashed", state=StateType.CRASHED, message=message, force=False)],
    )


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
