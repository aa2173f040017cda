"""What ``flwr`` packs, and the packed app on Flower's own local simulation."""

from __future__ import annotations

import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmchain_fl.bundle import SERVER, SITE, parts
from llmchain_fl.config.write import to_toml
from llmchain_fl.progress import Silent
from llmchain_fl.run_dir import RunDir
from simulations.prepare import prepare_sites
from simulations.run import simulate

pytestmark = [pytest.mark.slow, pytest.mark.flower, pytest.mark.timeout(1800)]


def test_the_bundle_holds_what_a_site_and_a_server_run_and_no_other_room(
    app: Path, only_the_bundle: Callable[[], dict[str, str]], tmp_path: Path
) -> None:
    subprocess.run(["flwr", "build", "--app", str(app)], env=only_the_bundle(), cwd=tmp_path, check=True)
    bundle = next(tmp_path.glob("*.fab"))
    with zipfile.ZipFile(bundle) as opened:
        packed = set(opened.namelist())
    assert {part.path for part in [*parts(app, SITE), *parts(app, SERVER)]} <= packed
    assert {"pyproject.toml", "README.md", "LICENSE", ".info/CONTENT", "llmchain_fl/scenarios/demo.toml"} <= packed
    rooms = {"/".join(name.split("/")[:2]) for name in packed}
    assert not rooms & {"llmchain_fl/cli", "llmchain_fl/compare", "llmchain_fl/comparisons", "llmchain_fl/api"}
    assert not any(
        name.startswith(("simulations/", "llmchain_fl/privacy/attacks/", "llmchain_fl/privacy/audit/", "tests/"))
        for name in packed
    )


def test_the_local_simulation_of_flwr_gives_the_numbers_of_the_in_process_grid(
    app: Path, tiny: Any, only_the_bundle: Callable[[], dict[str, str]], free_port: Callable[[], int], tmp_path: Path
) -> None:
    config = tiny.config(sites={"count": 2})
    sites, out = tmp_path / "sites", tmp_path / "run"
    prepare_sites(config, sites)
    scenario = tiny.scenario(tmp_path / "s.toml", sites={"count": 2})
    command = ["flwr", "run", ".", "local", "--stream"]
    nodes = ("--federation-config", "num-supernodes=2 client-resources-num-cpus=1")
    settings = ("--run-config", f'scenario="{scenario}" out="{out}" sites-dir="{sites}"')
    environment = {**only_the_bundle(), "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": str(free_port())}
    for _ in range(5):  # Flower gives its own SuperLink 15 s to start, which a busy machine does not keep
        done = subprocess.run(
            [*command, *nodes, *settings], cwd=app, env=environment, capture_output=True, text=True, timeout=1200
        )
        if "Failed to start local SuperLink" not in done.stdout + done.stderr:
            break
    assert done.returncode == 0, done.stdout + done.stderr
    here = RunDir.create(tmp_path / "here", to_toml(config))
    simulate(config, here, Silent(), "in-process")
    only_here = ("seconds", "local_", "ridge_")  # what one process alone can see: the sites' own models and records
    ours, theirs = (
        {key(row): row["value"] for row in run.rows() if not row["metric"].startswith(only_here)}
        for run in (here, RunDir.open(out))
    )
    assert theirs == pytest.approx(ours, rel=1e-5, abs=1e-6)


def key(row: dict[str, Any]) -> tuple[Any, ...]:
    """What a row measures."""
    return tuple(row[name] for name in ("round", "stage", "scope", "site", "task", "metric"))
