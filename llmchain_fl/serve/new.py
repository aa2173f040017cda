"""From a run to a server in one step: a hub, its first version, pulled as anybody would, a serve file over it.

::

    FOLDER/hub/        the published version        FOLDER/hub-home/   the publisher's key, who is trusted
    FOLDER/pulled/     the adapter that is served   FOLDER/serve.toml  one tenant ``desk`` with one person
    FOLDER/kept/       the store of feedback, once the server is up
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from llmchain_fl.config.read import read_config
from llmchain_fl.config.write import table_to_toml
from llmchain_fl.core.errors import ConfigError
from llmchain_fl.hub.evidence import Statement
from llmchain_fl.hub.publish import Offer, publish
from llmchain_fl.hub.pull import Wanted, pull
from llmchain_fl.hub.trust import own_identity, trust_publisher
from llmchain_fl.run_dir import RunDir
from llmchain_fl.serve.tokens import new_token, token_hash


def make_server(run: RunDir, folder: Path, name: str, statement: Statement, person: str) -> str:
    """Make all of it; the token of ``person``, which is kept nowhere.

    Raises:
        ConfigError: the folder is there already.
        RunError, HubError: the run has no adapter, or none that a puller takes.
    """
    if folder.exists():
        raise ConfigError([f"{folder} is there already"], remedy="name a new folder")
    home = folder / "hub-home"
    trust_publisher(home, "self", own_identity(home, make=True).public)
    manifest = publish(folder / "hub", home, Offer(run, name, statement))
    pull(str(folder / "hub"), Wanted(name), folder / "pulled", home, datetime.now(UTC))
    model, token = read_config(run.config).model, new_token()
    base = str(Path(model.path).absolute()) if Path(model.path).is_dir() else model.path
    tree = {
        "port": 8080,
        "hub_home": "hub-home",
        "base": base,
        "adapter": [{"folder": "pulled"}],
        "tenant": {"desk": {"adapters": [manifest.label], "persons": {person: token_hash(token)}}},
        "feedback": {"store": "kept/feedback.sqlite"},
    }
    write_serve_file(folder, tree)
    return token


def write_serve_file(folder: Path, tree: Mapping[str, Any]) -> Path:
    """``serve.toml`` in ``folder``, in place of what was there."""
    file = folder / "serve.toml"
    file.write_text(table_to_toml(tree), encoding="utf-8")
    return file
