"""What runs at a site is client/ and core/: all of it, nothing else, and not more than a reviewer reads."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pathspec
import pytest

from llmchain_fl.bundle import SERVER, SITE, parts
from llmchain_fl.cli.apps import app_root

ROOT = app_root()
ALWAYS, BY_NAME = 9_000, 10_400
"""Ceilings of client/ and core/, in lines. They may fall; whoever raises one says why in docs/adr/0005."""


def test_what_a_site_imports_is_client_and_core_and_nothing_else_of_the_project() -> None:
    paths = {part.path for part in parts(ROOT, SITE)}
    assert {path for path in paths if not path.startswith(("client/", "llmchain_fl/core/"))} == {
        "llmchain_fl/__init__.py"
    }


def test_client_and_core_hold_nothing_that_a_site_does_not_import() -> None:
    paths = {part.path for part in parts(ROOT, SITE)}
    there = [*(ROOT / "client").rglob("*.py"), *(ROOT / "llmchain_fl" / "core").rglob("*.py")]
    assert {file.relative_to(ROOT).as_posix() for file in there} <= paths


LOADED = """
for name, module in sorted(sys.modules.items()):
    if name.split(".")[0] in ("client", "llmchain_fl", "server", "simulations") and module.__file__:
        print("loaded", module.__file__)
"""
ROUND = """
import sys
from pathlib import Path
import client.app
from client.site import Site, SiteData
from llmchain_fl.core.adapter.resident import load_resident
from llmchain_fl.core.adapter.value import fresh_arrays
from llmchain_fl.core.messages import TrainTask
from llmchain_fl.core.work import WorkSpec

folder, text = Path(sys.argv[1]), Path(sys.argv[1], "work.json").read_text()
work = WorkSpec.from_json(text)
resident = load_resident(work.resident)
shapes = {name: resident.shapes[name] for name in resident.trained_names}
task = TrainTask("run-1", 1, 0, "cards", 0.1, text, fresh_arrays(shapes, work.adapter.seed))
site = Site(name="ward", state=str(folder / "state"), data=SiteData(train=str(folder / "{stage}.jsonl")))
reply = client.app.do_train(site, task, {}, None)
print("reply", *reply.array_records, *dict(reply.config_records["config"]).get("refused", ""))
"""
"""One private round at a site of its own, as the site's process plays it."""
ONE_SITE = 10_320
"""Ceiling of the lines that one site with LoRA, a label list and one private step a round loads."""
NOT_ASKED = (
    *("client/closed_form", "client/local", "client/memory", "client/plain_gradient", "client/rehearsal"),
    *("client/scores", "client/secure_sum", "client/shared_noise", "core/adapter/cored", "core/adapter/fold"),
    *("core/adapter/routing", "core/base_digest", "core/compression/codec", "core/compression/update"),
    *("core/frozen_prefix", "core/guards/distill", "core/guards/public_records", "core/guards/teacher"),
    *("core/known_bases", "core/privacy/counts", "core/privacy/integers", "core/privacy/null_ledger"),
    *("core/privacy/scores", "core/secure/member", "core/tasks/causal_lm", "core/adapter/variants/beside"),
)


def loaded_by(code: str, *told: str) -> tuple[set[str], list[str]]:
    """(the project's files that a process which runs ``code`` has loaded in the end, what else it says)."""
    command = [sys.executable, "-c", code + LOADED, *told]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("loaded ")]
    files = {Path(line.removeprefix("loaded ")).resolve().relative_to(ROOT.resolve()).as_posix() for line in lines}
    return files, [line for line in done.stdout.splitlines() if not line.startswith("loaded ")]


def test_the_closure_is_what_python_loads() -> None:
    loaded, _ = loaded_by("import sys, client.app")
    assert loaded == {part.path for part in parts(ROOT, SITE) if not part.by_name}


def test_a_site_loads_what_its_task_names_and_nothing_else_that_has_a_name(small: Any, tmp_path: Path) -> None:
    """LoRA, a label list, one private step a round in lockstep: the plainest site there is. ``-s`` shows its files."""
    work = small.work(train={"steps": 1, "method": "lockstep"})
    work = replace(work, plan=small.plan(work, unit="person"))
    (tmp_path / "work.json").write_text(work.to_json(), encoding="utf-8")
    rows = [{**row, "person": f"p{number}"} for number, row in enumerate(small.rows(12))]
    (tmp_path / "cards.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    loaded, (reply,) = loaded_by(ROUND, str(tmp_path))
    assert reply == "reply arrays"
    files = {part.path: part for part in parts(ROOT, SITE)}
    assert loaded <= set(files)
    for name in NOT_ASKED:
        path = next(path for path in files if path.removeprefix("llmchain_fl/") == f"{name}.py")
        assert files[path].by_name
        assert path not in loaded
    named = sorted(path for path in loaded if files[path].by_name)
    lines, beside = (sum(files[path].lines for path in some) for some in (loaded, named))
    sys.stdout.write(f"{len(loaded)} files, {lines} lines, of them {beside} by name: {', '.join(named)}\n")
    assert lines <= ONE_SITE


@pytest.mark.parametrize(("by_name", "ceiling", "room"), [(False, ALWAYS, 300), (True, BY_NAME, 500)])
def test_a_site_runs_no_more_lines_than_the_ceiling(by_name: bool, ceiling: int, room: int) -> None:
    """Kinds of task and variants come by name, so there is more room for them than for what always runs."""
    lines = sum(part.lines for part in parts(ROOT, SITE) if part.by_name is by_name)
    assert lines <= ceiling
    assert lines > ceiling - room, f"{lines} lines: lower the ceiling, it no longer holds anything"


def test_flowers_bundle_carries_what_runs_at_site_and_server_and_not_the_rooms_that_run_at_neither() -> None:
    told = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["flwr"]["app"]
    carried = pathspec.PathSpec.from_lines("gitwildmatch", told["fab-include"]).match_file  # as Flower reads them
    needed = {part.path for part in [*parts(ROOT, SITE), *parts(ROOT, SERVER)]}
    assert {path for path in needed if not carried(path)} == set()
    for room in ("llmchain_fl/compare", "llmchain_fl/cli", "llmchain_fl/privacy/audit", "simulations"):
        assert not any(carried(file.relative_to(ROOT).as_posix()) for file in (ROOT / room).rglob("*.py")), room


@pytest.mark.parametrize(
    ("app", "source", "expected"),
    [
        (SITE, "import llmchain_fl.a", {"a"}),
        (SITE, "from llmchain_fl import a", {"a"}),
        (SITE, "from llmchain_fl.a import thing", {"a"}),
        (SITE, "def f():\n    import llmchain_fl.a", {"a"}),
        (SITE, "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import llmchain_fl.a", set()),
        (SITE, "X = 'llmchain_fl.a:thing'", set()),
        (SITE, "X = 'llmchain_fl.core.b:thing'", {"core/b"}),
        (SERVER, "X = 'llmchain_fl.a:thing'", {"a"}),
        (SERVER, "import numpy", set()),
    ],
)
def test_each_row_of_the_table_of_imports(tmp_path: Path, app: str, source: str, expected: set[str]) -> None:
    start = f"{app.replace('.', '/')}.py"
    for name, text in {start: source, "llmchain_fl/a.py": "", "llmchain_fl/core/b.py": ""}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    found = {part.path for part in parts(tmp_path, app)} - {start}
    assert found == {f"llmchain_fl/{name}.py" for name in expected}


def test_in_a_wheel_where_the_apps_are_in_the_package_the_closure_is_the_same(tmp_path: Path) -> None:
    for room in ("client", "server", "simulations"):
        shutil.copytree(ROOT / room, tmp_path / room)
    assert parts(tmp_path, SITE) == parts(ROOT, SITE)


def test_bundle_lists_name_lines_and_digest_of_each_file(capsys: pytest.CaptureFixture[str]) -> None:
    from llmchain_fl.cli.bundle import command

    command(listed=True)
    *lines, always, named = capsys.readouterr().out.splitlines()
    told = {line.split()[2]: line.split() for line in lines}
    data = (ROOT / "client" / "app.py").read_bytes()
    assert told["client/app.py"][:2] == [hashlib.sha256(data).hexdigest(), str(data.count(b"\n"))]
    by_name = sum(line.endswith("by name") for line in lines)
    assert always.startswith(f"{len(lines) - by_name} files, ")
    assert named.startswith(f"{by_name} files, ")
    command(as_json=True)
    assert {part["path"] for part in json.loads(capsys.readouterr().out)} == set(told)
