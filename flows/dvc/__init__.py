"""All that we know of DVC, behind one door; `dvc.yaml` is the only graph, and DVC alone decides what is stale.

The rest of ``flows`` says ``from flows import dvc`` and never imports the modules below, nor DVC itself.
"""

from flows.dvc.entries import has_entry, read_entry, write_entry
from flows.dvc.experiments import (
    Experiment,
    differing,
    experiments,
    parse_value,
    read_file,
    remove_experiment,
    run_experiment,
)
from flows.dvc.failures import DATA, IN_USE, SETTINGS, STOPPED, TIMED_OUT, Busy, RemoteFailed, StageFailed
from flows.dvc.garbage import Garbage, collect_garbage, refuse_while_at_work, temporary_copies
from flows.dvc.locks import InUse, cache_folder, collecting, holder, lock_holders, repair, using_cache, working
from flows.dvc.overrides import apply_settings
from flows.dvc.planning import Planned, plan
from flows.dvc.remote import NoRemote, has_remote, pull, push
from flows.dvc.running import Outcome, repro
from flows.dvc.stages import Options, Stage, edges, read_stages

__all__ = [
    "DATA",
    "IN_USE",
    "SETTINGS",
    "STOPPED",
    "TIMED_OUT",
    "Busy",
    "Experiment",
    "Garbage",
    "InUse",
    "NoRemote",
    "Options",
    "Outcome",
    "Planned",
    "RemoteFailed",
    "Stage",
    "StageFailed",
    "apply_settings",
    "cache_folder",
    "collect_garbage",
    "collecting",
    "differing",
    "edges",
    "experiments",
    "has_entry",
    "has_remote",
    "holder",
    "lock_holders",
    "parse_value",
    "plan",
    "pull",
    "push",
    "read_entry",
    "read_file",
    "read_stages",
    "refuse_while_at_work",
    "remove_experiment",
    "repair",
    "repro",
    "run_experiment",
    "temporary_copies",
    "using_cache",
    "working",
    "write_entry",
]
