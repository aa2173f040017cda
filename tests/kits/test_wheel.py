"""From an installed wheel: the same bundle, the same list of files, the same kits as from a checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from llmchain_fl.cli.apps import app_root
from llmchain_fl.onprem.code import bundle_digest, code_digest

pytestmark = [pytest.mark.thorough, pytest.mark.slow]
ROOT = app_root()


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh folder into which the wheel of this checkout was unpacked."""
    folder = tmp_path_factory.mktemp("wheel")
    words = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    made = subprocess.run(words, capture_output=True, text=True, check=False)
    if "hatchling" in made.stderr and made.returncode:
        pytest.skip("needs hatchling, or an index that has it")
    assert made.returncode == 0, made.stderr
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def typed(installed: Path, cwd: Path, *words: str) -> str:
    """A command of what is installed there, nothing of the checkout beside it."""
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run(
        [sys.executable, "-P", *words], env=environment, cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_wheel_installs_no_name_but_the_package_s(installed: Path) -> None:
    assert {file.name for file in installed.iterdir() if not file.name.endswith(".dist-info")} == {"llmchain_fl"}


def test_its_bundle_and_its_list_of_files_are_those_of_the_checkout(installed: Path, tmp_path: Path) -> None:
    code = "from llmchain_fl.cli.apps import app_root as r; from llmchain_fl.onprem.code import *; "
    told = typed(installed, tmp_path, "-c", code + "print(r(), bundle_digest(r()), code_digest(r()))").split()
    assert told == [str(installed / "llmchain_fl" / "_app"), bundle_digest(ROOT), code_digest(ROOT)]
    listed = [typed(one, tmp_path, "-m", "llmchain_fl", "bundle", "--list") for one in (installed, ROOT)]
    assert listed[0] == listed[1]


def test_its_kits_approve_that_bundle_and_a_coordinator_from_it_makes_a_run_of_it(
    installed: Path, tmp_path: Path
) -> None:
    page = ROOT / "docs" / "examples" / "federation.toml"
    (tmp_path / "federation.toml").write_text(page.read_text().replace("requested", "made"))
    typed(installed, tmp_path, "-m", "llmchain_fl", "provision", "federation.toml", "--out", "kits")
    assert bundle_digest(ROOT) in (tmp_path / "kits/sites/north/site.toml").read_text()
    code = (
        "from pathlib import Path; from llmchain_fl.cli.apps import app_root; from llmchain_fl.onprem.runs import Runs"
    )
    code += "; print(len(Runs(Path('kits/coordinator'), app_root()).bundle()))"
    told = typed(installed, tmp_path, "-c", code)
    assert int(told) > 100_000
