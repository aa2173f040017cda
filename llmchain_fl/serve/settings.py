"""The serve file: what one server holds, and who may ask what. Written by whoever runs it::

    port = 8080                          # host = "127.0.0.1": a TLS proxy stands in front of anything else
    hub_home = "hub-home"                # whom this machine trusts (llmchain-fl hub keys trust)
    base = "minilm"                      # the base model on this machine; empty: as published

    [[adapter]]
    folder = "pulled/intents"            # what `llmchain-fl hub pull` left
    abstain_below = 0.55                 # public threshold: below it an answer says `abstain`

    [tenant.north]
    adapters = ["intents@3"]             # the first one answers where a request names none
    tokens = ["sha256:..."]              # llmchain-fl serve token

Paths are relative to the file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import pydantic
from pydantic import Field

from llmchain_fl.core.errors import ConfigError
from llmchain_fl.core.section import NAME, Section, faults_in
from llmchain_fl.core.toml_file import read_toml

SHA256 = "^sha256:[0-9a-f]{64}$"


class ServedAdapter(Section):
    """One adapter of the server."""

    folder: str
    """A hub folder."""
    abstain_below: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Answers of a smaller probability say that they abstain; from public records (`llmchain-fl serve threshold`)."""


class Tenant(Section):
    """One customer of the server, known by its tokens."""

    adapters: list[str]
    """Labels (`name@version`) it may use; the first one is the default."""
    tokens: list[Annotated[str, Field(pattern=SHA256)]] = Field(default_factory=list)
    """SHA-256 of each of its tokens."""
    persons: dict[str, Annotated[str, Field(pattern=SHA256)]] = Field(default_factory=dict)
    """Person -> SHA-256 of the token of this person alone: feedback under it is this person's."""
    speaks_for_persons: bool = False
    """The tenant has authenticated its users itself and names the person with each feedback."""
    per_minute: Annotated[int, Field(ge=0)] = 0
    """Most rows a minute; 0: no bound but the queue."""


class Queue(Section):
    """What waits, and how long."""

    rows: Annotated[int, Field(ge=1, le=65536)] = 512
    """Rows that may wait; more are refused with 429."""
    tenant_share: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Part of them that one tenant may have."""
    deadline_s: Annotated[float, Field(gt=0, le=3600)] = 30.0
    """A request that is not answered in this time is refused with 504."""
    batch: Annotated[int, Field(ge=1, le=256)] = 16
    """Most rows of a pass."""
    drain_s: Annotated[float, Field(ge=0, le=600)] = 20.0
    """How long a server that ends goes on answering what waits."""


class Bounds(Section):
    """How much a request may hold."""

    body_bytes: Annotated[int, Field(ge=1024, le=2**28)] = 2**20
    """Of a request's body; more is refused with 413."""
    inputs: Annotated[int, Field(ge=1, le=4096)] = 64
    """Texts of one request."""
    text_chars: Annotated[int, Field(ge=16, le=10**7)] = 20_000
    """Characters of one text."""
    new_tokens: Annotated[int, Field(ge=1, le=65536)] = 512
    """Tokens that may be written."""


class PublicPassages(Section):
    """Texts written for everybody, in which questions are looked up (extra `retrieval`)."""

    file: str = ""
    """Records with `text`, and `id` where they have one; empty: there are none."""
    shown: Annotated[int, Field(ge=1, le=16)] = 3
    """How many are shown where `/v1/classify` abstains."""


class Feedback(Section):
    """Whether and where feedback is kept."""

    store: str = ""
    """SQLite file; empty: no feedback is taken."""
    rows_per_day: Annotated[int, Field(ge=1)] = 50
    """Most rows one person may leave a day (UTC)."""


class CanarySettings(Section):
    """A newly promoted adapter against its parent."""

    line: str = ""
    """The line whose canary is played (`llmchain-fl promote --canary`); empty: none."""


class ServeSettings(Section):
    """The whole file."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    """0: a free one."""
    grpc_port: Annotated[int, Field(ge=0, le=65535)] | None = None
    """Of the Open Inference Protocol over gRPC; absent: none. 0: a free one."""
    hub_home: str = "hub-home"
    base: str = ""
    """The base model on this machine; empty: by the published name."""
    threads: Annotated[int, Field(ge=0, le=256)] = 0
    """Of the model; 0: one less than the machine has, at least one."""
    adapter: list[ServedAdapter]
    tenant: dict[Annotated[str, Field(pattern=NAME)], Tenant]
    queue: Queue = Queue()
    bounds: Bounds = Bounds()
    feedback: Feedback = Feedback()
    passages: PublicPassages = PublicPassages()
    canary: CanarySettings = CanarySettings()

    @pydantic.model_validator(mode="after")
    def _sound(self) -> ServeSettings:
        tokens = [token for one in self.tenant.values() for token in (*one.tokens, *one.persons.values())]
        if len(set(tokens)) < len(tokens):
            raise ValueError("a token stands for two tenants or persons: make one for each (llmchain-fl serve token)")
        if not self.adapter or not self.tenant:
            raise ValueError("at least one [[adapter]] and one [tenant.NAME]")
        silent = [name for name, one in self.tenant.items() if not one.adapters]
        if silent:
            raise ValueError(f"tenant.{silent[0]}.adapters: at least one label")
        if self.canary.line and not self.feedback.store:
            raise ValueError("canary.line: without feedback nothing is learned; set feedback.store")
        return self


_PARTS = (ServeSettings, ServedAdapter, Tenant, Queue, Bounds, Feedback, PublicPassages, CanarySettings)


def read_settings(path: Path) -> ServeSettings:
    """Read a serve file; relative paths in it are taken from its folder.

    Raises:
        ConfigError: missing, not TOML, or faults in it (all at once).
    """
    tree: dict[str, Any] = read_toml(path, "serve file", remedy="write one; docs/serve.md shows it")
    try:
        found = ServeSettings.model_validate(tree)
    except pydantic.ValidationError as error:
        raise ConfigError(faults_in(error, _PARTS, path.name)) from None
    place = path.absolute().parent
    adapters = [one.model_copy(update={"folder": str(place / one.folder)}) for one in found.adapter]
    base = str(place / found.base) if found.base.startswith(".") else found.base
    store = str(place / found.feedback.store) if found.feedback.store else ""
    moved: dict[str, Any] = {"adapter": adapters, "hub_home": str(place / found.hub_home), "base": base}
    moved["feedback"] = found.feedback.model_copy(update={"store": store})
    file = found.passages.file
    moved["passages"] = found.passages.model_copy(update={"file": str(place / file) if file else ""})
    moved["canary"] = CanarySettings(line=str(place / found.canary.line) if found.canary.line else "")
    return found.model_copy(update=moved)
