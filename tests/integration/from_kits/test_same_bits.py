"""A run over kits, TLS, keys and nginx (where there is one) ends with the bits of the run in one process.

Without noise; with masks, and without. Three sites reply in whatever order they like.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from llmchain_fl.adapter.files import read_adapter
from llmchain_fl.run_dir import RunDir

pytestmark = [pytest.mark.thorough, pytest.mark.slow, pytest.mark.flower, pytest.mark.timeout(3600)]
NGINX = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
CONF = Path(__file__).parents[3] / "docs/examples/nginx.conf"
NAMES = ("site-00", "site-01", "site-02")
HERE, PROXY = "127.0.0.1", "127.0.0.2"
PAGE = """
name = "lab"
address = "127.0.0.2:{port}"
listen = "LISTEN"
scenario = "scenario.toml"
[data]
train = "records/{{stage}}.jsonl"
[limits]
require_privacy = false
[secure]
only = false
[sites.site-00]
[sites.site-01]
[sites.site-02]
"""
SECTIONS: dict[str, Any] = {
    "sites": {"count": 3, "held_out": 0.0, "wait_seconds": 300},
    "data": {"train": "at-the-sites"},
    "continual": {"guards": []},
    "stage": [{"name": "first", "rounds": 2}, {"name": "second", "rounds": 1}],
}


@pytest.fixture
def behind_nginx(tmp_path: Path) -> Iterator[Callable[[Any], None]]:
    """Starts the proxy of docs/examples before the coordinator of a federation."""
    started: list[subprocess.Popen[bytes]] = []

    def start(one: Any) -> None:
        text = CONF.read_text(encoding="utf-8").replace("kits/coordinator", f'"{one.kit}')
        text = text.replace(".crt;", '.crt";').replace(".key;", '.key";')
        text = text.replace("127.0.0.1:8000", f"{HERE}:{one.port}").replace("203.0.113.7:8000", f"{PROXY}:{one.port}")
        text = text.replace("fl.example.org", "localhost").replace("http {", "http {\nclient_body_temp_path body;")
        file = tmp_path / "nginx.conf"
        file.write_text(f"user root; daemon off; pid {tmp_path}/pid;\n{text}")
        started.append(
            subprocess.Popen([str(NGINX), "-p", str(tmp_path), "-e", str(tmp_path / "nginx.log"), "-c", str(file)])
        )

    yield start
    for process in started:
        process.terminate()
        process.wait(timeout=30)


def test_the_adapters_are_those_of_runs_in_one_process_with_masks_and_without(
    federated: Callable[..., Any], behind_nginx: Callable[[Any], None], tiny: Any, tmp_path: Path
) -> None:
    in_the_clear = {"secure": {"sum": False}, **SECTIONS, "data": {}}
    here, plain = tiny.played(tmp_path / "plain", **in_the_clear)
    _, masked = tiny.played(tmp_path / "masked", **{**in_the_clear, "secure": {"sum": True}})
    one = federated(PAGE.replace("LISTEN", HERE if NGINX else "0.0.0.0"), "lab", **SECTIONS, secure={"sum": True})
    one.type("coordinator", "provision", "federation.toml", "--out", "kits")
    for name in NAMES:
        shutil.copytree(one.folder / "kits" / "sites" / name, one.at(name))
        (one.at(name) / "records").mkdir()
        for file in (here.sites / name).glob("*.jsonl"):
            shutil.copy(file, one.at(name) / "records")
    if NGINX:
        behind_nginx(one)
    one.up("coordinator", "coordinator", "up", "kits/coordinator")
    for name in NAMES:
        one.up(name, "site", "up")
    for number, (expected, settings) in enumerate([(plain, ["--set", "secure.sum=false"]), (masked, [])], 1):
        one.type("coordinator", "coordinator", "run", "kits/coordinator", *settings)
        _, found = read_adapter(RunDir.open(one.kit / "runs" / f"lab-{number}").adapter)
        assert found.keys() == expected.keys()
        assert {name for name in found if found[name].tobytes() != expected[name].tobytes()} == set()
        assert any(value.any() for name, value in found.items() if name.endswith("lora_B"))
