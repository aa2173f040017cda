"""A static HTTP server is a hub; whatever else answers is refused, and never followed elsewhere."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from llmchain_fl.core.errors import ConfigError
from llmchain_fl.hub import HubError, layout
from llmchain_fl.hub.pull import Wanted, pull
from llmchain_fl.hub.source import source


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


class Hostile(BaseHTTPRequestHandler):
    """Answers by the path that is asked for."""

    asked: list[str] = []  # noqa: RUF012 (one server, one test)

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if "elsewhere" in self.path:
            self.send_response(302)
            self.send_header("Location", "/secret")
            self.end_headers()
        elif "endless" in self.path:
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(OSError):  # the puller hangs up
                for _ in range(64):
                    self.wfile.write(b"x" * 2**20)
        else:
            self.send_response(500)
            self.end_headers()


@pytest.fixture
def serving() -> Iterator[Any]:
    """A function that serves with a handler and gives the address."""
    servers = []

    def start(handler: Any) -> str:
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_folder_behind_a_plain_http_server_is_the_same_hub(published: Any, tmp_path: Path, serving: Any) -> None:
    copy = published.copied(tmp_path)
    address = serving(functools.partial(Quiet, directory=str(copy.hub)))
    got = pull(address, Wanted("bank"), tmp_path / "got", copy.home, datetime.now(UTC))
    assert got.address == copy.addresses[1]
    with pytest.raises(HubError, match=r"^missing: .*index.json"):  # nothing would say how old it is
        pull(f"{address}/objects/{copy.addresses[1]}", Wanted(), tmp_path / "lone", copy.home, datetime.now(UTC))
    with pytest.raises(HubError, match=r"^missing:"):
        pull(address, Wanted("loans"), tmp_path / "loans", copy.home, datetime.now(UTC))


def test_a_server_cannot_send_the_puller_elsewhere_nor_keep_it_reading(serving: Any) -> None:
    read = source(serving(Hostile))
    with pytest.raises(HubError, match=r"^transport:"):
        read("elsewhere", layout.MIB)
    assert "/secret" not in Hostile.asked
    with pytest.raises(HubError, match=r"^size:"):
        read("endless", layout.MIB)
    with pytest.raises(HubError, match=r"^transport: .*500"):
        read("index.json", layout.MIB)


def test_nobody_who_answers_is_one_refusal() -> None:
    with pytest.raises(HubError, match=r"^transport:"):
        source("http://127.0.0.1:9")("index.json", 10)


@pytest.mark.parametrize("place", ["file:///etc", "ftp://host/hub", "data:,x", "no/such/folder", ""])
def test_another_scheme_is_no_hub(place: str) -> None:
    with pytest.raises(ConfigError, match="is no hub"):
        source(place)
