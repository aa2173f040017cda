"""The monitor's file. Written by whoever runs it::

    stream = "stream.jsonl"              # "-": standard input
    watch = ["negative"]                 # labels whose rate is watched
    adapter = "runs/demo-1"              # absent: the stream's own column `label`
    reference = "public.csv"             # public records: the adapter's errors, and what texts look like
    topics = ["cards", "loans"]          # others count as one; absent: all are one

Paths are relative to the file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import pydantic
from pydantic import Field

from llmchain_fl.core.errors import ConfigError
from llmchain_fl.core.section import Section, faults_in
from llmchain_fl.core.toml_file import read_toml

STDIN = "-"
ALL, OTHER, INPUTS = RESERVED = ("all", "other", "inputs")
"""Topics of no name: all texts, those of any other topic, what texts look like."""
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Limits(Section):
    """When an alarm is one. Chosen on made-up streams (`benchmarks/bench_monitor.py --choose`)."""

    window: Annotated[int, Field(ge=20, le=100_000)] = 200
    """Texts of one window of a topic."""
    warm_up: Annotated[int, Field(ge=1, le=10_000)] = 20
    """Windows from which the usual rate is taken, where `base_rate` is not given."""
    base_rate: Annotated[float, Field(ge=0, lt=1)] | None = None
    """The usual rate."""
    least_change: Annotated[float, Field(gt=0, le=0.9)] = 0.05
    """The smallest change of the rate that matters, in shares."""
    direction: Literal["rise", "fall"] = "rise"
    """Of the changes that matter."""
    between: Annotated[float, Field(ge=10, le=1e12)] = 1e6
    """Windows of a topic among which there is one false alarm at most."""
    calm: Annotated[int, Field(ge=1, le=1000)] = 3
    """Windows in a row that look as before, until an alarm is over."""
    per_source: Annotated[int, Field(ge=1)] = 4
    """Texts of one source that count in a window; more are passed over."""
    adwin_delta: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Above 0: ADWIN beside it, for changes of any size (state `watch`); 1e-6 is quiet."""
    drift_directions: Annotated[int, Field(ge=1, le=256)] = 8
    """Main directions of the public texts along which drift is looked for."""
    drift_chance: Annotated[float, Field(gt=0, lt=0.1)] = 1e-6
    """Drift where a window like this one is less likely without it."""


class Page(Section):
    """Where the page is. It has counts and rates, and no text."""

    file: str = ""
    """Written anew after each window."""
    port: Annotated[int, Field(ge=0, le=65535)] | None = None
    """Served on 127.0.0.1; 0: a free port."""


class Webhook(Section):
    """Who is told of alarms: kind, topic, window, rates. No text."""

    url: str = ""
    """https, or http on this machine."""
    secret: str = ""
    """A file with a secret; bodies are then signed with it (HMAC-SHA256, header `X-Signature`)."""


class MonitorSettings(Section):
    """The whole file."""

    stream: str
    """JSON lines; `-`: standard input."""
    follow: bool = False
    """Go on reading where the file grows, until Ctrl-C."""
    watch: list[str] = Field(min_length=1)
    """Labels whose rate is watched, together."""
    adapter: str = ""
    """A run, or an adapter folder, that says the label of a text; empty: the stream has it."""
    reference: str = ""
    """Public records with text and label; empty: the adapter's errors are not corrected and drift is not looked for."""
    reference_size: Annotated[int, Field(ge=40, le=100_000)] = 1000
    """At most so many of them."""
    topics: list[str] = Field(default_factory=list)
    """Public names; a text of any other topic counts as `other`."""
    columns: dict[Literal["text", "label", "topic", "source"], str] = Field(default_factory=dict)
    """Their names in the stream, where they are others."""
    reference_columns: dict[Literal["text", "label"], str] = Field(default_factory=dict)
    """Their names in the reference."""
    limits: Limits = Limits()
    page: Page = Page()
    webhook: Webhook = Webhook()

    @pydantic.model_validator(mode="after")
    def _sound(self) -> MonitorSettings:
        if self.reference and not self.adapter:
            raise ValueError("reference: its labels say how often the adapter errs; name the adapter, or leave it out")
        if self.follow and self.stream == STDIN:
            raise ValueError("follow: standard input ends by itself; leave it out")
        if len(set(self.topics)) < len(self.topics):
            raise ValueError("topics: a name stands there twice")
        if set(self.topics) & set(RESERVED):
            raise ValueError(f"topics: {', '.join(RESERVED)} mean something else here")
        parts = urlsplit(self.webhook.url)
        near = parts.scheme == "http" and parts.hostname in LOOPBACK
        if self.webhook.url and not (near or (parts.scheme == "https" and parts.hostname)):
            raise ValueError("webhook.url: https://..., or http:// on this machine")
        return self


def read_settings(path: Path) -> MonitorSettings:
    """Read a monitor's file; relative paths in it are taken from its folder.

    Raises:
        ConfigError: missing, not TOML, or faults in it (all at once).
    """
    tree = read_toml(path, "monitor file", remedy="write one; docs/monitor.md shows it")
    try:
        settings = MonitorSettings.model_validate(tree)
    except pydantic.ValidationError as error:
        raise ConfigError(faults_in(error, (MonitorSettings, Limits, Page, Webhook), path.name)) from None
    place = path.absolute().parent

    def moved(name: str) -> str:
        plain = not name or name == STDIN or ":" in name
        return name if plain else str(place / name)

    names = {key: moved(getattr(settings, key)) for key in ("stream", "adapter", "reference")}
    page = settings.page.model_copy(update={"file": moved(settings.page.file)})
    webhook = settings.webhook.model_copy(update={"secret": moved(settings.webhook.secret)})
    return settings.model_copy(update={**names, "page": page, "webhook": webhook})
