"""``llmchain-fl serve``: tokens, checks, settings with faults; nothing heavy is imported before it is needed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from llmchain_fl.cli.serve import app
from llmchain_fl.core.errors import ConfigError
from llmchain_fl.serve.settings import read_settings
from llmchain_fl.serve.tokens import token_hash

HASH = token_hash("a")
FINE = f"""[[adapter]]
folder = "one"
[tenant.north]
adapters = ["one@1"]
tokens = ["{HASH}"]
"""


def test_a_token_and_its_hash_are_printed_and_are_new_each_time() -> None:
    first, second = (CliRunner().invoke(app, ["token"]).output.splitlines() for _ in range(2))
    assert token_hash(first[0]) == first[1]
    assert len(first[0]) > 40
    assert first[0] != second[0]


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "serve.toml").write_text('hub_home = "home"\n' + FINE + '[feedback]\nstore = "s.sqlite"\n')
    told = read_settings(tmp_path / "serve.toml")
    assert (told.hub_home, told.adapter[0].folder) == (str(tmp_path / "home"), str(tmp_path / "one"))
    assert told.feedback.store == str(tmp_path / "s.sqlite")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("prot = 1\n" + FINE, "did you mean port?"),
        (FINE.replace(HASH, "lfl_secret"), "tokens"),
        (FINE + f'[tenant.south]\nadapters = ["one@1"]\ntokens = ["{HASH}"]\n', "two tenants or persons"),
        (FINE.replace('["one@1"]', "[]"), "at least one label"),
        ('adapter = []\n[tenant.a]\nadapters = ["x"]\n', "at least one"),
        (FINE + "[queue]\nrows = 0\n", "queue.rows"),
        (FINE + "[queue]\ndeadline_s = nan\n", "deadline_s"),
    ],
)
def test_a_fault_of_the_file_is_named_and_no_token_is_quoted(tmp_path: Path, text: str, fault: str) -> None:
    (tmp_path / "serve.toml").write_text(text)
    with pytest.raises(ConfigError) as error:
        read_settings(tmp_path / "serve.toml")
    assert fault in str(error.value)
    assert "lfl_secret" not in str(error.value)


def test_the_command_line_imports_neither_the_server_nor_the_store() -> None:
    code = (
        "import sys, llmchain_fl, llmchain_fl.cli.main; "
        "print([n for n in sys.modules if n.split('.')[0] in ('torch', 'fastapi', 'uvicorn', 'sqlite3', 'grpc') "
        "or n.startswith(('llmchain_fl.serve', 'llmchain_fl.feedback'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_threshold_counts_no_answer_of_the_model_as_none_that_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five silences, all right and surer than any piece, do not stand for right pieces."""
    from llmchain_fl.cli import trained

    class Doubting:
        def answer(self, rows: Any, top: int) -> list[list[tuple[str, float]]]:
            return [[("", 0.99)]] * 5 + [[("card", 0.9)]] + [[("card", 0.3)]]

        def encode(self, rows: Any) -> Any:
            return rows

        def record_scores(self, rows: Any) -> Any:
            return np.array([1.0] * 6 + [0.0])

    row = {"question": "why", "context": "card", "answers": ["card"], "answer_start": [0]}
    (tmp_path / "asked.jsonl").write_text((json.dumps(row) + "\n") * 7, encoding="utf-8")
    monkeypatch.setattr(trained, "find_adapter", lambda path: path)
    monkeypatch.setattr(trained, "own_columns", lambda path: {})
    monkeypatch.setattr(trained, "task_of", lambda path: trained.TaskRead("span-qa-or-none", []))
    monkeypatch.setattr(trained, "open_trained", lambda path: (None, Doubting()))
    told = ["threshold", str(tmp_path), "--file", str(tmp_path / "asked.jsonl"), "--accuracy"]
    done = CliRunner().invoke(app, [*told, "0.2"])
    assert "abstain_below = 0.9000" in done.output
    assert "14.3%" in done.output
    assert isinstance(CliRunner().invoke(app, [*told, "0.4"]).exception, ConfigError)
