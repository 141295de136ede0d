"""Files for servers: deployments, work pools, units. What they name exists, and what they say is valid."""

from __future__ import annotations

import asyncio
import configparser
import inspect
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import jsonschema
import prefect
import pytest
import yaml
from prefect.client.schemas.actions import DeploymentCreate
from prefect.client.schemas.objects import ConcurrencyLimitConfig
from prefect.client.schemas.schedules import CronSchedule
from prefect.flows import load_flow_from_entrypoint
from prefect.server.schemas.actions import WorkPoolCreate
from prefect.utilities.schema_tools.validation import is_valid_schema
from prefect.utilities.templating import find_placeholders
from prefect.workers.base import BaseJobConfiguration
from prefect.workers.process import ProcessWorker
from pydantic import Field

from flows import automations, up
from flows.dvc import read_stages
from tests.imports import ROOT

FILE = yaml.safe_load((ROOT / "prefect.yaml").read_text())
DEPLOYMENTS = {f"{each['entrypoint'].rpartition('.')[2]}/{each['name']}": each for each in FILE["deployments"]}
POOLS = {path.stem: json.loads(path.read_text()) for path in sorted((ROOT / "deploy" / "pools").glob("*.json"))}
UNITS = sorted((ROOT / "deploy" / "systemd").iterdir())


def shipped(kind: str) -> dict[str, Any]:
    """What Prefect's own package for such pools takes, as the server knows it."""
    folder = Path(prefect.__file__).parent / "server" / "api" / "collections_data" / "views"
    known = json.loads((folder / "aggregate-worker-metadata.json").read_text())
    return known[f"prefect-{kind}"][kind]["default_base_job_configuration"]


def test_deployments_are_those_that_people_are_told_of():
    assert sorted(DEPLOYMENTS) == [
        "end_to_end/nightly", "evaluate/on-demand", "housekeeping/weekly", "prepare_data/weekly-data",
        "spread/on-demand", "stage/cpu", "stage/gpu",
    ]  # fmt: skip


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_a_deployment_starts_a_flow_that_takes_its_parameters(name):
    deployment = DEPLOYMENTS[name]
    flow = load_flow_from_entrypoint(deployment["entrypoint"], use_placeholder_flow=False)
    inspect.signature(flow.fn).bind_partial(**deployment.get("parameters", {}))
    if deployment.get("schedules"):
        flow.validate_parameters(deployment.get("parameters", {}))
    for schedule in deployment.get("schedules", []):
        CronSchedule(cron=schedule["cron"])
    if limit := deployment.get("concurrency_limit"):
        assert ConcurrencyLimitConfig.model_validate(limit).limit == 1


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_the_automations_look_after_every_deployment_and_hear_of_it_often_enough(name):
    deployment = DEPLOYMENTS[name]
    assert automations.TAG in deployment["tags"]
    every = int(deployment["work_pool"]["job_variables"]["env"]["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"])
    assert 3 * every == automations.SILENT_SECONDS


def test_there_is_a_deployment_for_each_pool_that_a_stage_names():
    pools = {stage.options.pool for stage in read_stages(ROOT)}
    assert pools <= {each["name"] for name, each in DEPLOYMENTS.items() if name.startswith("stage/")}


def test_the_file_says_nothing_of_this_machine():
    (pull,) = FILE["pull"]
    assert pull == {"prefect.deployments.steps.set_working_directory": {"directory": f"{{{{ ${up.ROOT} }}}}"}}
    assert str(ROOT) not in (ROOT / "prefect.yaml").read_text()
    local = [each for name, each in DEPLOYMENTS.items() if not name.startswith(("spread", "stage"))]
    assert {each["work_pool"]["name"] for each in local} == {f"{{{{ ${up.POOL} }}}}"}


TEMPLATES = POOLS | {"process": ProcessWorker.get_default_base_job_template()}


@pytest.mark.parametrize("kind", TEMPLATES)
def test_the_server_takes_a_pool_and_what_the_deployments_set_in_it(kind):
    template = TEMPLATES[kind]
    WorkPoolCreate(name="pool", type=kind, base_job_template=template)
    is_valid_schema(template["variables"])
    defaults = {
        name: each["default"] for name, each in template["variables"]["properties"].items() if "default" in each
    }
    jsonschema.validate({name: value for name, value in defaults.items() if value is not None}, template["variables"])
    for deployment in DEPLOYMENTS.values():
        variables = deployment["work_pool"]["job_variables"]
        DeploymentCreate(name="any", flow_id=uuid4(), job_variables=variables).check_valid_configuration(template)


@pytest.mark.parametrize("kind", POOLS)
def test_a_pool_says_only_what_its_worker_knows(kind):
    known = set(shipped(kind)["job_configuration"]) | ({"container_create_kwargs"} if kind == "docker" else set())
    assert set(POOLS[kind]["job_configuration"]) <= known


def contains(outer: Any, inner: Any) -> bool:
    if isinstance(inner, dict):
        return all(key in outer and contains(outer[key], value) for key, value in inner.items())
    if isinstance(inner, list):
        return len(outer) == len(inner) and all(map(contains, outer, inner))
    return outer == inner


def test_a_kubernetes_job_is_prefects_with_something_added():
    ours, theirs = POOLS["kubernetes"], shipped("kubernetes")
    assert contains(ours["job_configuration"]["job_manifest"], theirs["job_configuration"]["job_manifest"])


class Configuration(BaseJobConfiguration):
    """Of a run on either kind of pool: what only their own packages know."""

    container_create_kwargs: dict[str, Any] = Field(default_factory=dict)
    job_manifest: dict[str, Any] = Field(default_factory=dict)
    volumes: list[str] = Field(default_factory=list)


@pytest.fixture
def filled(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """What a worker is given for a run of ``stage``, without a server: no template names a block or a variable."""

    async def as_it_is(template: Any, **_: Any) -> Any:
        return template

    for name in ("resolve_block_document_references", "resolve_variables"):
        monkeypatch.setattr(f"prefect.workers.base.{name}", as_it_is)
    given = DEPLOYMENTS["stage/gpu"]["work_pool"]["job_variables"]
    nobody: Any = object()
    return lambda kind: asyncio.run(
        Configuration.from_template_and_values(POOLS[kind], given, client=nobody)
    ).model_dump()


def test_a_docker_run_has_one_gpu_memory_to_share_and_a_workspace_that_stays(filled):
    run = filled("docker")
    (request,) = run["container_create_kwargs"]["device_requests"]
    assert request["count"] == 1 and request["capabilities"] == [["gpu"]]
    assert run["container_create_kwargs"]["shm_size"]
    assert run["env"]["STYLEGAN_T_WORKSPACE"].startswith(run["volumes"][0].partition(":")[2] + "/")
    assert run["env"]["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] == "30"


def test_a_kubernetes_run_has_one_gpu_memory_to_share_and_a_workspace_that_stays(filled):
    run = filled("kubernetes")
    pod = run["job_manifest"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["resources"]["limits"] == {"nvidia.com/gpu": 1}
    mounts = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
    assert {each["name"] for each in pod["volumes"]} == set(mounts)
    assert mounts["shared-memory"] == "/dev/shm"
    assert run["env"]["STYLEGAN_T_WORKSPACE"].startswith(mounts["workspace"] + "/")
    assert not find_placeholders(json.dumps(pod["volumes"]))


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.stem)
def test_a_unit_starts_what_there_is_and_tells_nobody_of_its_use(unit):
    parser = configparser.ConfigParser(strict=False, interpolation=None, delimiters=["="])
    parser.optionxform = str  # pyright: ignore[reportAttributeAccessIssue]
    parser.read(unit)
    command = parser["Service"]["ExecStart"].split()
    assert command[1] == "-m" and Path(command[0]).is_relative_to(parser["Service"]["WorkingDirectory"])
    done = subprocess.run([sys.executable, "-c", f"import importlib.util as u; assert u.find_spec({command[2]!r})"])
    assert done.returncode == 0
    text = unit.read_text()
    assert "DO_NOT_TRACK=1" in text or "STREAMLIT_BROWSER_GATHER_USAGE_STATS=false" in text
    assert "0.0.0.0" not in text


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="this machine has no systemd")
def test_systemd_finds_nothing_wrong_with_the_units(tmp_path):
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").symlink_to(sys.executable)
    units = []
    for path in UNITS:
        units.append(tmp_path / path.name.replace("@", "@gpu-0"))
        units[-1].write_text(path.read_text().replace("/srv/stylegan-t", str(tmp_path)))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
