"""A fresh user's walk: the very lines of docs/serve.md, over a tiny run, from a run to a correction that trains."""

from __future__ import annotations

import re
import shlex
import threading
import tomllib
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from typer.testing import CliRunner

from llmchain_fl.cli.main import app
from llmchain_fl.core.base_model import load_base
from llmchain_fl.serve.settings import read_settings
from llmchain_fl.serve.up import Running, open_server

ROOT = Path(__file__).resolve().parents[2]
HEADING = "## From the demo to a correction that trains"
MOST = 6


def lines() -> list[list[str]]:
    """The commands of the walk, behind ``make demo``."""
    text = (ROOT / "docs" / "serve.md").read_text(encoding="utf-8").partition(HEADING)[2]
    block = re.search(r"^```text\n(.*?)^```$", text, re.M | re.S)
    assert block is not None
    words = [shlex.split(line, comments=True) for line in block[1].splitlines()]
    assert words[0] == ["make", "demo"]
    return [one[1:] for one in words[1:]]


def told(words: list[str], **more: Any) -> str:
    done = CliRunner().invoke(app, words, **more)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.output


class Up:
    """The server of ``serve up`` on a thread."""

    def __init__(self, file: str) -> None:
        there, self.url = threading.Event(), ""

        def ready(http: str, _grpc: str) -> None:
            self.url = http
            there.set()

        settings = read_settings(Path(file)).model_copy(update={"port": 0})
        self.running: Running = open_server(settings, told=ready, load=load_base.__wrapped__)
        self._thread = threading.Thread(target=self.running.run, daemon=True)
        self._thread.start()
        assert there.wait(120)

    def stop(self) -> None:
        self.running.stop()
        self._thread.join(60)


def test_six_commands_lead_from_a_run_to_a_correction_that_trains(
    run: Any, small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    walk = lines()
    assert len(walk) <= MOST
    assert [one[:2] for one in walk] == [
        ["serve", "new"], ["serve", "up"], ["feedback", "correct"], ["feedback", "review"], ["feedback", "edition"],
        ["simulate", "docs/examples/corrections.toml"],
    ]  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("server.app._write_pages", lambda run: None)
    new, up, correct, review, edition, simulate = walk
    new = [str(run.path) if word == "runs/demo-1" else word for word in new]
    said = told([str(ROOT / word) if word.endswith(".json") else word for word in new])
    monkeypatch.setenv("LLMCHAIN_FL_TOKEN", said.rpartition("=")[2].strip())
    server = Up(up[2])
    label = next(name for name, text in small.labels.items() if len(text.split()) == 3)
    try:
        correct = [label if word == "card_lost_or_stolen" else word for word in correct]
        assert "it is kept" in told([*correct, "--server", server.url])
    finally:
        server.stop()
    assert "1 accepted" in told(review, input="a\n")
    assert "1 records of 1 persons" in told(edition)
    tree = tomllib.loads((ROOT / simulate[1]).read_text(encoding="utf-8"))
    before = tomllib.loads(run.config.read_text(encoding="utf-8"))
    own = {key: {k: v for k, v in before[key].items() if v != ""} for key in ("model", "task", "aggregation")}
    tree |= {**own, "adapter": {**before["adapter"], "start": str(run.path / "adapter")}}
    tree["data"] |= {"test": before["data"]["test"]}
    tree["train"] |= {"method": before["train"]["method"]}
    Path("corrections.toml").write_text(tomli_w.dumps(tree), encoding="utf-8")
    told(["simulate", "corrections.toml", "--out", "runs/december"])
    rows = [line for line in Path("runs/december/metrics.jsonl").read_text().splitlines() if '"epsilon"' in line]
    assert rows, "a private stage was trained, and charged"


def test_a_server_is_made_once_and_a_correction_without_a_server_says_so(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llmchain_fl.core.errors import ConfigError, RunError

    (tmp_path / "there").mkdir()
    with pytest.raises(ConfigError, match="is there already"):
        told(["serve", "new", str(run.path), str(tmp_path / "there"),
              "--statement", str(ROOT / "docs/examples/statement.json")])  # fmt: skip
    monkeypatch.delenv("LLMCHAIN_FL_TOKEN", raising=False)
    with pytest.raises(ConfigError, match="no token"):
        told(["feedback", "correct", "a", "b"])
    with pytest.raises(RunError, match="no answer from the server"):
        told(["feedback", "correct", "a", "b", "--token", "x", "--server", "http://127.0.0.1:9"])
    with pytest.raises(ConfigError, match="no address"):
        told(["feedback", "correct", "a", "b", "--token", "x", "--server", "ftp://x"])
