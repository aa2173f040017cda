"""The same run on Flower's simulation engine: same numbers, same errors, nothing left behind."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest

import llmchain_fl
from llmchain_fl.adapter.files import read_adapter
from llmchain_fl.config.schema import RunConfig
from llmchain_fl.config.write import to_toml
from llmchain_fl.core.errors import RunError
from llmchain_fl.progress import Silent
from llmchain_fl.run_dir import RunDir
from simulations.prepare import prepare_sites
from simulations.ray_backend import LONGEST_FOLDER, SITES_LOG, SitesApp, _app_of, _ray_folder, _resources
from simulations.run import simulate

pytestmark = [pytest.mark.slow, pytest.mark.flower, pytest.mark.timeout(1800)]
MAIN = "from llmchain_fl.cli.main import main; main()"


def play(config: RunConfig, folder: Path, backend: str) -> RunDir:
    run = RunDir.create(folder, to_toml(config))
    simulate(config, run, Silent(), backend)
    return run


def measured(run: RunDir) -> list[dict[str, Any]]:
    only_here = ("seconds", "local_")  # what one process alone can see: the sites' own models
    return [row for row in run.rows() if not row["metric"].startswith(only_here)]


def test_ray_and_the_in_process_grid_give_the_same_adapter_and_the_same_metrics(
    tiny: Any, quiet_flower: dict[str, str], still_running: Callable[[dict[str, str]], list[Any]], tmp_path: Path
) -> None:
    before = dict(os.environ)
    masked = tiny.config(secure={"sum": True})
    here, there = play(masked, tmp_path / "here", "in-process"), play(masked, tmp_path / "there", "ray")
    _, ours = read_adapter(here.adapter)
    _, theirs = read_adapter(there.adapter)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        np.testing.assert_allclose(theirs[name], value, rtol=1e-5, atol=1e-6, err_msg=name)
    assert any(value.any() for name, value in ours.items() if name.endswith("lora_B"))
    assert measured(there) == measured(here)
    assert len({row["site"] for row in measured(there) if row["metric"] == "accuracy"}) == 4  # three sites and None
    assert still_running(quiet_flower) == []
    assert dict(os.environ) == before
    assert not (there.sites / SITES_LOG).exists()


@pytest.mark.thorough
def test_a_round_that_fails_at_every_site_ends_in_our_error_and_the_sites_say_why(
    tiny: Any, quiet_flower: dict[str, str], still_running: Callable[[dict[str, str]], list[Any]], tmp_path: Path
) -> None:
    config = tiny.config()
    run = RunDir.create(tmp_path / "run", to_toml(config))
    for site in prepare_sites(config, run.sites):
        (run.sites / site.name / "second.jsonl").unlink()
    with pytest.raises(RunError, match=r"round 2: none of 3 sites gave an update \(data\)"):
        simulate(config, run, Silent(), "ray")
    assert "second.jsonl" in (run.sites / SITES_LOG).read_text(encoding="utf-8")
    assert max(row["round"] for row in run.rows() if row["metric"] == "accuracy") == 1
    assert run.report.is_file()
    assert still_running(quiet_flower) == []


@pytest.fixture
def as_in_a_wheel(tmp_path: Path) -> Path:
    """The packages laid out as an installed wheel has them: the app folders inside ``llmchain_fl/_app``."""
    source = Path(llmchain_fl.__file__).parent
    target = tmp_path / "site-packages" / "llmchain_fl"
    leave = shutil.ignore_patterns("__pycache__", "_app")
    shutil.copytree(source, target, ignore=leave)
    for name in ("server", "client", "simulations"):
        shutil.copytree(source.parent / name, target / "_app" / name, ignore=leave)
    return target.parent


@pytest.mark.thorough
def test_ctrl_c_stops_ray_and_the_run_goes_on_elsewhere_to_the_same_end(
    tiny: Any,
    quiet_flower: dict[str, str],
    still_running: Callable[[dict[str, str]], list[Any]],
    as_in_a_wheel: Path,
    wait_until: Callable[..., None],
    tmp_path: Path,
) -> None:
    stages = [{"name": "first", "rounds": 20}]
    scenario = tiny.scenario(tmp_path / "long.toml", stage=stages)
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    elsewhere.mkdir()
    environment = {**quiet_flower, "PYTHONPATH": str(as_in_a_wheel)}
    command = [sys.executable, "-c", MAIN, "simulate", str(scenario), "--out", str(out), "--backend", "ray"]
    with subprocess.Popen(
        command, cwd=elsewhere, env=environment, stderr=subprocess.PIPE, start_new_session=True
    ) as played:
        try:
            wait_until(lambda: at_round(out, 2), tmp_path, alive=lambda: played.poll() is None)
            os.killpg(played.pid, signal.SIGINT)
            _, said = played.communicate(timeout=600)
        finally:
            if played.poll() is None:
                os.killpg(played.pid, signal.SIGKILL)
    assert played.returncode == 130, said.decode()
    assert b"--resume" in said
    assert b"Traceback" not in said
    assert still_running(quiet_flower) == []
    resume = [sys.executable, "-c", MAIN, "simulate", "--resume", str(out)]
    subprocess.run(resume, cwd=elsewhere, env=environment, check=True, capture_output=True, timeout=1200)
    whole = play(tiny.config(stage=stages), tmp_path / "whole", "in-process")
    assert measured(RunDir.open(out)) == measured(whole)


def at_round(run: Path, number: int) -> bool:
    metrics = run / "metrics.jsonl"
    return metrics.is_file() and f'"round": {number},' in metrics.read_text(encoding="utf-8")


@pytest.fixture
def as_an_actor() -> Iterator[None]:
    """An actor is a process of its own: what it sets up for good is taken down here."""
    log = logging.getLogger("llmchain_fl")
    before = list(log.handlers)
    yield
    log.handlers[:] = before
    _app_of.cache_clear()


@pytest.mark.usefixtures("as_an_actor")
def test_an_app_travels_as_file_names_and_is_made_once_in_an_actor(tmp_path: Path) -> None:
    files = (tmp_path / "sites" / "a" / "site.toml", tmp_path / "sites" / "b" / "site.toml")
    sent = cloudpickle.dumps(SitesApp(files))
    assert len(sent) < 2_000
    first, second = cloudpickle.loads(sent), cloudpickle.loads(sent)
    assert first._files == second._files == files
    assert _app_of(first._files) is _app_of(second._files)


def test_ray_gets_no_more_actors_than_there_are_sites_and_no_gpu_for_a_cpu_run(tiny: Any) -> None:
    given = _resources(tiny.config(model={"device": "cpu"}), sites=1)
    assert given["init_args"]["num_cpus"] == 1
    assert given["client_resources"] == {"num_cpus": 1, "num_gpus": 0.0}
    assert _resources(tiny.config(), sites=10**6)["init_args"]["num_cpus"] == os.cpu_count()


def test_the_folder_of_ray_is_gone_afterwards_and_is_left_to_ray_where_its_name_would_be_too_long(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with _ray_folder() as folder:
        assert folder is None or Path(folder).is_dir()
    assert folder is None or not Path(folder).exists()
    long = tmp_path / ("x" * LONGEST_FOLDER)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    with _ray_folder() as folder:
        assert folder is None
    assert list(long.iterdir()) == []
