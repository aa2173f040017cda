"""Many sites on one machine: prepare them, choose how they are run, play.

Two backends play the same ServerApp loop with the same ClientApp over the same site folders; ``flwr run`` is the third
way (docs/on-flower.md).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from flwr.app import Context

from client.app import make_app
from client.site import Site
from client.training import LocalResult
from llmchain_fl.config.read import build, read_config
from llmchain_fl.config.schema import RunConfig
from llmchain_fl.config.write import to_toml
from llmchain_fl.core.base_model import load_base
from llmchain_fl.core.errors import ConfigError
from llmchain_fl.core.messages import TrainTask
from llmchain_fl.extras import need
from llmchain_fl.planning.work import base_spec
from llmchain_fl.progress import Progress
from llmchain_fl.run_dir import RunDir, fresh
from server.app import run_all
from server.changes import check_resumed
from server.extend import Extension
from server.state import last_state
from simulations.backdoor import armed
from simulations.baselines import baselines
from simulations.dealing import site_names
from simulations.hostile import HostileApp, Threat, hostile_sites
from simulations.local_scores import LocalScores
from simulations.own_trainer import OwnTrainer, loop_of, refuse
from simulations.prepare import Sites, dealt_in, prepare_sites, write_site_files
from simulations.seen import Teller, Watcher
from simulations.simulation_grid import Pays, SimulationGrid, processes
from simulations.site_notes import SITES_LOG
from simulations.workers import Serving, Workers

ONE_THREAD = {"threads": 1}
"""Of a site where there are workers, played in one or not: the last bits of long sums follow the number of threads."""
REMEMBERED_MB = 2048
"""At most, in each process."""


def start(config: RunConfig, scenario: str, out: Path | None) -> RunDir:
    """A new run directory with the resolved configuration in it."""
    return RunDir.create(out or fresh(Path("runs"), scenario), to_toml(config))


def reopen(path: Path, settings: Sequence[str] = ()) -> tuple[RunConfig, RunDir]:
    """An existing run and its configuration, with ``settings`` laid over it."""
    run = RunDir.open(path)
    return read_config(run.config, settings), run


def share_outputs(config: RunConfig) -> None:
    """From here on runs of this process over the same base compute what frozen layers give for a text once."""
    load_base(base_spec(config)).remembered.limit_mb = REMEMBERED_MB


def extend(config: RunConfig, run: RunDir) -> RunConfig:
    """Make a run go further, as ``config`` says; a simulation's new records are dealt out. Nothing is played.

    Returns:
        The configuration to go on with: simulated sites that are new join in the next round.

    Raises:
        LlmchainError: see ``server/extend.py``; nothing has changed.
    """
    if not simulated(run):
        with run.alone():
            Extension(config, run).commit()
        return config
    config = with_new_sites(config, run)
    with run.alone():
        extension = Extension(config, run, baselines(config, run.sites, site_names(config)))
        prepare_sites(config, run.sites)
        write_site_files(config, run.sites)
        extension.commit()
    return config


def simulated(run: RunDir) -> bool:
    """Whether the sites of the run are on this machine, made by a simulation."""
    return dealt_in(run.sites) is not None


def with_new_sites(config: RunConfig, run: RunDir) -> RunConfig:
    """Sites that the run does not know yet join in the next round, unless ``stream.arrival`` says otherwise."""
    state, dealt = last_state(run.state), dealt_in(run.sites)
    new = set() if state is None or dealt is None else set(site_names(config)) - {*dealt.sites, *config.stream.arrival}
    if state is None or not new:
        return config
    tree = config.model_dump()
    tree["stream"]["arrival"] |= {name: {"joins": state.round + 1} for name in sorted(new)}
    return build(tree)


def simulate(
    config: RunConfig,
    run: RunDir,
    progress: Progress,
    backend: str = "in-process",
    own_trainer: OwnTrainer | None = None,
    workers: int = 1,
) -> None:
    """Play ``config`` in ``run``; goes on from the last finished round if there is one.

    ``own_trainer`` trains at the sites in place of the local loop (``own_trainer.py``); ``workers``: how many processes
    play sites, 0: as many as pays (``simulation_grid.py``). Ray starts its own.

    Raises:
        LlmchainError: see ``server/build.py``, or another process is at work on the run; every finished round is kept.
    """
    if own_trainer is not None:
        refuse(config, backend)
    if config.model.threads:
        torch.set_num_threads(config.model.threads)
    with run.alone():
        check_resumed(config, run)
        sites = prepare_sites(config, run.sites)
        BACKENDS[backend](config, run, sites, progress, own_trainer, workers)


def threat_of(config: RunConfig, names: list[str]) -> Threat:
    """Which simulated sites are hostile, and how; usually none."""
    sites = config.sites
    return Threat(sites.attack, sites.attack_strength, hostile_sites(names, sites.hostile, config.seed), config.seed)


def _in_process(
    config: RunConfig,
    run: RunDir,
    sites: Sites,
    progress: Progress,
    own_trainer: OwnTrainer | None = None,
    workers: int = 1,
) -> None:
    names = sites.names
    threat = threat_of(config, names)
    hostile = {site.name: site for site in armed(config, list(map(sites.of, sorted(threat.sites))), threat)}
    local = LocalScores(config)
    count = processes(config, workers, own_trainer=own_trainer is not None)
    noised = not (config.privacy.enabled and config.privacy.unit == "site")  # else these ratios are of private steps

    def rows_of(site: Site, task: TrainTask, result: LocalResult) -> list[dict[str, Any]]:
        return strength_rows(site.name, task, result) + local.rows(site, task) if noised else []

    def open_site(context: Context) -> Site:
        name = str(context.node_config["site-name"])
        site = hostile.get(name) or sites.of(name)
        return site if count == 1 else site.model_copy(update={"compute": site.compute.model_copy(update=ONE_THREAD)})

    watcher, loop = Watcher(rows_of), None if own_trainer is None else loop_of(own_trainer)
    app = HostileApp(make_app(open_site, watcher, loop), threat)
    serving = Serving(app, watcher, run.sites / SITES_LOG, load_base(base_spec(config)).remembered)

    pays = None if workers else Pays(count, config.total_rounds * (config.sites.cohort or config.sites.count))
    with contextlib.ExitStack() as ending:
        several = ending.enter_context(Workers(serving, count)) if count > 1 else None
        grid = SimulationGrid(serving, several, names, Teller(run, progress), pays)
        run_all(config, run, grid, progress, baselines(config, run.sites, names))


def strength_rows(site: str, task: TrainTask, result: LocalResult) -> list[dict[str, Any]]:
    """How strong the guards were at a simulated site: a real one writes this into its own log and sends nothing."""
    base = {"round": task.round, "stage": task.stage, "scope": "site", "site": site, "task": task.stage_name, "n": None}
    values = {"guard_penalty": result.penalty, "guard_pull": result.pull}
    return [{**base, "metric": metric, "value": value} for metric, value in values.items() if value]


def _ray(
    config: RunConfig,
    run: RunDir,
    sites: Sites,
    progress: Progress,
    _own_trainer: OwnTrainer | None = None,
    workers: int = 1,
) -> None:
    """Flower's own simulation engine: Ray actors, each a process with its own base model."""
    need("ray", "backend ray")
    from simulations.ray_backend import run_on_ray

    if config.sites.hostile:
        raise ConfigError(["sites.hostile needs the in-process backend"])
    if workers > 1:
        raise ConfigError(["--workers needs the in-process backend: Ray starts an actor a core"])
    run_on_ray(config, run, [run.sites.resolve() / name / "site.toml" for name in sites.names], progress)


Backend = Callable[[RunConfig, RunDir, Sites, Progress, OwnTrainer | None, int], None]
BACKENDS: Mapping[str, Backend] = MappingProxyType({"in-process": _in_process, "ray": _ray})
