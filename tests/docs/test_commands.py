"""Every fenced block of README and docs is run, with small settings, in one folder that holds one finished run.

A block that cannot run here has ``<!-- not run: REASON -->`` in the line before its fence. ``text`` is output.
"""

from __future__ import annotations

import ast
import csv
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydantic
import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *(page for page in sorted((ROOT / "docs").glob("*.md")) if page.name != "log.md")]
FENCE = re.compile(r"(?:<!-- not run: (?P<why>[^\n]*?) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.M | re.S)
SMALL = [
    "stage.rounds=1",
    "train.steps=1",
    "sites.count=3",
    "data.train_size=300",
    "data.test_size=60",
    "data.baseline=0",
    "privacy.enabled=false",
]
"""What ``simulate`` is made small with."""
LONG = {"streams", "evaluate", "simulation"}
"""Pages whose commands are played by ``make thorough`` alone: months of a bank, many models, many processes."""
HERE = {"/srv/north/site.toml": "runs/demo-1/sites/site-00/site.toml"}
"""A path of the docs -> one of the folder of these tests."""


@dataclass(frozen=True)
class Block:
    """One fenced block."""

    page: Path
    line: int
    language: str
    text: str
    why: str | None

    def __str__(self) -> str:
        return f"{self.page.stem}-{self.line}"


def blocks() -> list[Block]:
    """All of them, in order."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for one in FENCE.finditer(text):
            line = text[: one.start("text")].count("\n")
            found.append(Block(page, line, one["language"] or "sh", one["text"], one["why"]))
    return found


ALL = blocks()


def of(*languages: str) -> list[Block]:
    """Those that are run."""
    return [block for block in ALL if block.language in languages and block.why is None]


def long_or_not(block: Block) -> Any:
    """``block`` as a case; of the pages in ``LONG`` a thorough one."""
    return pytest.param(block, marks=[pytest.mark.thorough] if block.page.stem in LONG else [])


def commands(text: str) -> Iterator[str]:
    """The commands of a block of shell, one a line, without comments."""
    for line in text.replace("\\\n", " ").splitlines():
        if line.split("#")[0].strip():
            yield line


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where commands are run: one small run of the demo, and the files that the docs speak of."""
    import llmchain_fl as lf

    place = tmp_path_factory.mktemp("docs")
    lf.run("demo", settings=SMALL, out=place / "runs/demo-1")
    with (place / "my-messages.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(
            [("message", "queue"), ("my card is gone", "card_lost_or_stolen"), ("close it", "close_account")]
        )
    (place / "runs/bank-year-1").mkdir()
    keep_feedback(place / "kept/feedback.sqlite")
    shutil.copytree(ROOT / "docs/examples", place / "docs/examples")
    return place


def keep_feedback(file: Path) -> None:
    """A store with one correction that was accepted."""
    from llmchain_fl.feedback.record import Told
    from llmchain_fl.feedback.store import Store

    store = Store(file)
    told = ("north", "ann miller", "intents@3", "a" * 64, "classification", "req-1", "my card is gone", "close_account")
    store.add(Told(*told, "correct", "card_lost_or_stolen", 1.0), 9)
    store.agree("north", "ann miller", "train", "2026-11", 1.0)
    store.decide(1, True)
    store.close()


def made_small(words: list[str]) -> list[str]:
    """The command with small settings; what comes later on the line wins."""
    name = words[1]
    if name == "simulate" and "--resume" not in words:
        settings = [part for one in SMALL for part in ("--set", one)]
        return [*words[:3], *settings, *words[3:]]
    if name == "compare" and not {"--list", "--dry-run"} & set(words):
        return [*words, "--dry-run"]
    return words


def llmchain_fl(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the command line in this process."""
    from llmchain_fl.cli.main import main

    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code, shlex.join(words)


@pytest.mark.slow
@pytest.mark.parametrize("block", [long_or_not(block) for block in of("sh", "bash", "console")], ids=str)
def test_every_command_runs(
    block: Block, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("LLMCHAIN_FL_HUB", str(folder / "hub-home"))
    for line in commands(block.text):
        words = [HERE.get(word, word) for word in shlex.split(line, comments=True)]
        if words[0] == "llmchain-fl":
            llmchain_fl(made_small(words), monkeypatch)
        else:
            if words[0] == "make":
                words = ["make", "-n", "-C", str(ROOT), *words[1:]]
            done = subprocess.run(["bash", "-c", shlex.join(words) if words[0] == "make" else line], check=False)
            assert done.returncode == 0, line
        said = line.partition(" # ")[2].strip()
        if words[1:2] == ["predict"] and said:
            first = capsys.readouterr().out.splitlines()[1].split()
            assert first[1] == said, f"{block}: the answer of the docs is another one"


@pytest.mark.slow
@pytest.mark.parametrize("block", of("python"), ids=str)
def test_every_piece_of_python_runs(block: Block, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from llmchain_fl.core.base_model import locate

    monkeypatch.chdir(folder)
    hub = "sentence-transformers/all-MiniLM-L6-v2"
    code = block.text.replace(hub, locate("minilm").path)
    names: dict[str, Any] = {}
    exec(code, names)
    for expression, said in re.findall(r"^(\w.*?) +# (\[.*\])$", code, re.M):
        assert eval(expression, names) == ast.literal_eval(said), expression


@pytest.mark.parametrize("block", of("json"), ids=str)
def test_every_record_in_the_docs_is_one_of_the_kind_in_the_heading_above_it(block: Block, tmp_path: Path) -> None:
    from llmchain_fl.core.data.source import read_fitting
    from llmchain_fl.core.tasks.kind import task_kind

    above = "\n".join(block.page.read_text(encoding="utf-8").splitlines()[: block.line])
    kind = task_kind(re.findall(r"^## .*: `([\w-]+)`$", above, re.M)[-1])
    file = tmp_path / "records.jsonl"
    file.write_text(block.text, encoding="utf-8")
    rows, left = read_fitting(str(file), mapping={}, required=kind.columns)
    names = re.findall(r"[\w(),-]+", block.text)
    assert [kind.fault_of(row, names) for row in rows.records] == [""]
    assert not left.total


@pytest.mark.parametrize("block", of("toml"), ids=str)
def test_every_piece_of_toml_holds_settings_that_there_are(block: Block) -> None:
    from client.site import Site
    from llmchain_fl.compare.read import build_comparison
    from llmchain_fl.config.schema import RunConfig
    from llmchain_fl.monitor.settings import MonitorSettings
    from llmchain_fl.onprem.federation import Page
    from llmchain_fl.serve.settings import ServeSettings

    tree = tomllib.loads(block.text)
    if "tenant" in tree:
        assert ServeSettings.model_validate(tree).tenant.keys() == tree["tenant"].keys()
    elif "watch" in tree:
        assert MonitorSettings.model_validate(tree).watch == tree["watch"]
    elif "superlink" in tree:
        return  # Flower's own file
    elif "address" in tree:
        assert Page.model_validate(tree).name == tree["name"]
    elif "seeds" in tree:
        assert build_comparison("docs", tree).seeds == tuple(tree["seeds"])
    elif "limits" in tree:
        assert Site.model_validate(tree).name == tree["name"]
    else:
        for name, value in tree.items():
            pydantic.TypeAdapter(RunConfig.model_fields[name].annotation).validate_python(value)


def test_what_is_not_run_is_little_and_says_why() -> None:
    left_out = [block for block in ALL if block.why is not None]
    assert all(len(str(block.why)) > 10 for block in left_out)
    assert len(left_out) <= 12, [str(block) for block in left_out]
    for block in left_out:
        for test in re.findall(r"tests/[\w/.]+", str(block.why)):
            assert (ROOT / test).exists(), f"{block}: {test}"


def test_every_block_is_run_or_is_text() -> None:
    assert {block.language for block in ALL} <= {"sh", "python", "toml", "json", "text"}
    assert len(of("sh")) > 10


@pytest.mark.slow
@pytest.mark.parametrize("name", ["quick_start", "own_trainer"])
def test_every_example_script_runs(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import runpy

    monkeypatch.syspath_prepend(str(ROOT / "docs/examples"))
    script = runpy.run_path(str(ROOT / "docs/examples" / f"{name}.py"))
    result = script["main"](str(folder / f"runs/{name}"))
    assert result.predict(["somebody stole my card"]) == ["card lost"]
    assert result.report.is_file()
