"""``llmchain-fl serve``: tokens, checks, settings with faults; nothing heavy is imported before it is needed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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
