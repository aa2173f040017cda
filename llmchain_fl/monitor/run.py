"""One monitor, from its file to the end of its stream."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from llmchain_fl.atomic_file import atomic_write
from llmchain_fl.extras import need
from llmchain_fl.monitor.rates import NO_ERRORS
from llmchain_fl.monitor.reader import BATCH, Reader
from llmchain_fl.monitor.settings import MonitorSettings
from llmchain_fl.monitor.stream import Entry, entry_of, lines
from llmchain_fl.monitor.watch import Notice, Watch
from llmchain_fl.monitor.webhook import Teller

if TYPE_CHECKING:
    from llmchain_fl.monitor.served import PageServer


def watch_stream(settings: MonitorSettings, say: Callable[[str], None], stop: threading.Event | None = None) -> Watch:
    """Watch a stream until it ends, or until ``stop`` is set.

    Args:
        say: is given one line for each notice, and where the page is.

    Raises:
        ConfigError, DataError, RunError, ModelError: something of the file cannot be had.
    """
    stop, lock = stop or threading.Event(), threading.Lock()
    with ExitStack() as ending:
        teller = Teller(settings.webhook) if settings.webhook.url else None
        if teller is not None:
            ending.callback(teller.close)

        def tell(notice: Notice) -> None:
            say(notice.words())
            if teller is not None:
                teller.tell(notice)

        reader = Reader(Path(settings.adapter), settings.watch) if settings.adapter else None
        confusion, reference = reader.held_against(settings) if reader is not None else (NO_ERRORS, None)
        watch = Watch(settings, confusion, reference, tell)
        if settings.page.port is not None:
            ending.callback(_served(watch, lock, settings.page.port, say).close)
        for batch in _batches(settings, watch, stop):
            _see(watch, lock, reader, batch)
        _write(watch)
    return watch


def _served(watch: Watch, lock: threading.Lock, port: int, say: Callable[[str], None]) -> PageServer:
    need("serve", "page.port")
    need("report", "page.port")
    from llmchain_fl.monitor.page import page
    from llmchain_fl.monitor.served import PageServer

    def show() -> str:
        with lock:
            return page(watch)

    server = PageServer(show, port)
    say(f"page: {server.address}")
    return server


def _batches(settings: MonitorSettings, watch: Watch, stop: threading.Event) -> Iterator[list[Entry]]:
    """As many entries as go through the model together, or those that are there when the stream pauses."""
    batch: list[Entry] = []
    required = "text" if settings.adapter else "label"
    columns = {str(name): column for name, column in settings.columns.items()}
    for line in lines(settings.stream, settings.follow, stop):
        entry = entry_of(line, columns, required) if line.strip() else None
        watch.bad_lines += bool(line.strip()) and entry is None
        if entry is not None:
            batch.append(entry)
        if batch and (entry is None or len(batch) == BATCH):
            yield batch
            batch = []
    yield batch


def _see(watch: Watch, lock: threading.Lock, reader: Reader | None, batch: list[Entry]) -> None:
    texts = [one.text for one in batch]
    yes = [one.label in watch.settings.watch for one in batch] if reader is None else reader.says(texts)
    vectors = reader.vectors(texts) if reader is not None and watch.reference is not None and texts else None
    with lock:
        full = [
            watch.see(yes[place], one.topic, one.source, None if vectors is None else vectors[place])
            for place, one in enumerate(batch)
        ]
    if any(full):
        _write(watch)


def _write(watch: Watch) -> None:
    if watch.settings.page.file:
        need("report", "page.file")
        from llmchain_fl.monitor.page import page

        atomic_write(Path(watch.settings.page.file), page(watch).encode("utf-8", errors="replace"))
