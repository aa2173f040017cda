"""The executors know Flower's inside in one file, and refuse a Flower that nobody has looked at."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import flwr
import pytest

from llmchain_fl.cli.apps import app_root
from llmchain_fl.core.errors import ConfigError
from llmchain_fl.onprem.flower_version import TRIED, check_flower

EXECUTORS = ("flower_runtime", "flower_version", "heartbeat", "process", "run_flower", "supervisor", "task", "up")
SHARED = ("waiting_work",)
ROOM = Path(app_root()) / "llmchain_fl" / "onprem"


@pytest.mark.parametrize("version", ["1.41.0", "1.42.3", flwr.__version__])
def test_the_versions_that_were_tried_are_taken(version: str) -> None:
    check_flower(version)


@pytest.mark.parametrize("version", ["1.40.0", "1.43.0", "2.0.0", "1.4", "1.410.0"])
def test_any_other_is_refused_by_name_and_with_what_to_do(version: str) -> None:
    with pytest.raises(ConfigError, match=rf"Flower {version} is installed") as refused:
        check_flower(version)
    assert "flower-superexec" in refused.value.remedy


def test_the_package_allows_the_versions_that_were_tried_and_no_other() -> None:
    told = tomllib.loads((app_root() / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    low, high = re.fullmatch(r"flwr>=1\.(\d+),<1\.(\d+)", next(one for one in told if one.startswith("flwr"))).groups()  # type: ignore[union-attr]
    assert tuple(f"1.{minor}" for minor in range(int(low), int(high))) == TRIED


def test_every_name_of_the_inside_is_there_in_the_installed_flower() -> None:
    from llmchain_fl.onprem import flower_runtime as inside

    told = (inside.CLIENT_APP, inside.AGENT_APP, inside.SERVER_APP)
    assert told == ("flwr-clientapp", "flwr-agentapp", "flwr-serverapp")


def test_no_other_file_of_the_executors_knows_a_name_of_the_inside() -> None:
    inner = re.compile(r"^\s*(?:from|import) flwr\.(?!app\b)\w+", re.M)
    files = [*ROOM.glob("*executor.py"), *(ROOM / f"{name}.py" for name in (*EXECUTORS, *SHARED))]
    assert [file.name for file in files if inner.search(file.read_text(encoding="utf-8"))] == ["flower_runtime.py"]
