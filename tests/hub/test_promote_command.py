"""``llmchain-fl promote`` and ``rollback`` over versions of a real run: what passes is served, what does not is not."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from llmchain_fl.cli.main import app
from llmchain_fl.core.errors import ConfigError, ModelError
from llmchain_fl.hub.pull import Wanted, pull
from llmchain_fl.hub.trust import own_identity

POLICY = """worse = {worse}
calibration = 1.0
robustness = 1.0
bias = 1.0
fewest = 20
draws = 200
{more}
[[probe]]
name = "all"
data = "{data}"
size = 40
"""


def told(*words: str) -> str:
    done = CliRunner().invoke(app, list(words))
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.stdout


def test_versions_are_promoted_one_after_the_other_and_one_is_taken_back(
    published: Any, run: Any, small: Any, tmp_path: Path
) -> None:
    home, line = published.copied(tmp_path).home, str(tmp_path / "line")
    own_identity(home, make=True)
    for number in (1, 2):
        pull(str(published.hub), Wanted("bank", number), tmp_path / str(number), home, datetime.now(UTC))
    data = run.path.parent / "records.jsonl"
    (tmp_path / "open.toml").write_text(POLICY.format(worse=1.0, more="", data=data))
    (tmp_path / "tight.toml").write_text(POLICY.format(worse=1.0, more='epsilon = 0.001\nunit = "record"', data=data))

    def promote(number: int, policy: str, *more: str) -> str:
        words = ["--policy", str(tmp_path / policy), "--base", str(small.bert), "--home", str(home), *more]
        return told("promote", str(tmp_path / str(number)), line, *words)

    with pytest.raises(ModelError, match=r"not promoted: epsilon\n"):
        promote(1, "tight.toml")
    said = promote(1, "open.toml")
    assert said.splitlines()[-1] == f"promoted: {published.addresses[0]}"
    assert "FAILED" not in said
    with pytest.raises(ModelError, match=r"not promoted: lineage\n"):
        promote(1, "open.toml")
    with pytest.raises(ConfigError, match="--canary"):
        promote(2, "open.toml", "--canary", "1.0")
    said = promote(2, "open.toml", "--canary", "0.5")
    assert "passed  lineage: its parent is the current adapter" in said
    assert said.splitlines()[-1].startswith("bank@2 against bank@1: running, 0 votes of 500")
    assert told("canary", line) == f"{said.splitlines()[-1]}\n"
    with pytest.raises(ConfigError, match="a canary is running"):
        promote(2, "open.toml")
    assert told("rollback", line, "--home", str(home)) == "served again: bank@1\n"
    assert len(list((tmp_path / "line" / "verdicts").iterdir())) == 2
