"""A whole monitor: its file, streams that lie, the page, the webhook, and that no text gets out."""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from typer.testing import CliRunner

from llmchain_fl.cli.main import app
from llmchain_fl.core.errors import ConfigError, DataError
from llmchain_fl.monitor.page import page
from llmchain_fl.monitor.run import watch_stream
from llmchain_fl.monitor.served import PageServer, make_app
from llmchain_fl.monitor.settings import MonitorSettings, Webhook, read_settings
from llmchain_fl.monitor.stream import MOST_CHARS, entry_of, lines
from llmchain_fl.monitor.watch import Notice, Watch
from llmchain_fl.monitor.webhook import Teller

SECRET = "Jane-Canary-1970"
LIMITS = "[limits]\nwindow = 40\nbase_rate = 0.1\ncalm = 1\n"
CALM, LOUD = [0.1] * 3, [0.7] * 3


class Receiver(BaseHTTPRequestHandler):
    """Keeps what it is sent; answers with the next of ``statuses``, 200 after them."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append((dict(self.headers), body))  # type: ignore[attr-defined]
        statuses = self.server.statuses  # type: ignore[attr-defined]
        self.send_response(statuses.pop(0) if statuses else 200)
        self.send_header("Location", self.path)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Quiet."""


@pytest.fixture
def receiver() -> Iterator[Any]:
    server: Any = HTTPServer(("127.0.0.1", 0), Receiver)
    server.got, server.statuses = [], []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def test_a_rise_in_one_topic_is_told_and_no_text_and_no_source_with_it(
    written: Callable[..., Path], stream: Callable[..., Any], receiver: Any, tmp_path: Path
) -> None:
    entries = [
        *stream(CALM, 40, topic="cards"),
        *stream(LOUD, 40, topic="cards", source=""),
        *stream(CALM, 40, topic="cards"),
    ]
    for place, one in enumerate(entries):
        one.update(text=SECRET, source=f"{SECRET}-{place}")
    entries += stream(CALM, 40, topic=SECRET)
    (tmp_path / "secret").write_text("0123456789abcdef\n")
    file = written(
        entries,
        f'topics = ["cards"]\n{LIMITS}[page]\nfile = "page.html"\n[webhook]\nsecret = "secret"\n'
        f'url = "http://127.0.0.1:{receiver.server_port}/"\n',
    )
    done = CliRunner().invoke(app, ["monitor", str(file)])
    assert done.exit_code == 0, done.output
    assert [json.loads(body)["kind"] for _, body in receiver.got] == ["alarm", "over"]
    told = json.loads(receiver.got[0][1])
    assert set(told) == {"event", "kind", "topic", "window", "value", "usual", "at"}
    assert (told["topic"], told["window"] in (4, 5)) == ("cards", True)
    headers, body = receiver.got[0]
    signed = hmac.new(b"0123456789abcdef", body, hashlib.sha256).hexdigest()
    assert headers["X-Signature"] == f"sha256={signed}"
    html = (tmp_path / "page.html").read_text()
    for place in (done.output, html, *(body.decode() for _, body in receiver.got)):
        assert SECRET not in place
    assert "other" in html
    assert "alarm: cards" in done.output


@pytest.mark.parametrize(
    ("line", "fits"),
    [
        ('{"label": "bad"}', True),
        ('{"label": "bad", "topic": "x", "more": 1}', True),
        ('{"label": ""}', False), ("{}", False), ("[]", False), ("nothing", False), ('{"label": 3}', False),
        ('{"label": "bad", "topic": ["x"]}', False), ("[" * 5000, False),
        ('{"label": "bad"}' + " " * MOST_CHARS, False),
    ],
    ids=range(10),
)  # fmt: skip
def test_a_line_is_an_entry_or_is_left_out(line: str, fits: bool) -> None:
    assert (entry_of(line, {}, "label") is not None) is fits


def test_lines_that_are_none_are_counted_and_never_quoted(
    written: Callable[..., Path], stream: Callable[..., Any]
) -> None:
    file = written([f'{{"label": 1, "{SECRET}": 2}}', SECRET, "", *stream([0.1], 40)], LIMITS)
    done = CliRunner().invoke(app, ["monitor", str(file)])
    assert "2 lines could not be read" in done.output
    assert "40 texts, 1 windows, 0 notices" in done.output
    assert SECRET not in done.output


def test_a_file_that_grows_is_followed_and_read_anew_where_it_was_replaced(tmp_path: Path) -> None:
    file, stop, seen = tmp_path / "log.jsonl", threading.Event(), list[str]()
    file.write_text("one\ntw")

    def read() -> None:
        for line in lines(str(file), True, stop):
            if line:
                seen.append(line.strip())

    thread = threading.Thread(target=read, daemon=True)
    thread.start()

    def until(wanted: list[str]) -> None:
        end = time.monotonic() + 20
        while seen != wanted and time.monotonic() < end:
            time.sleep(0.01)
        assert seen == wanted

    until(["one"])
    with file.open("a") as opened:
        opened.write("o\n")
    until(["one", "two"])
    (tmp_path / "new").write_text("three\n")
    (tmp_path / "new").rename(file)
    until(["one", "two", "three"])
    stop.set()
    thread.join(5)
    assert not thread.is_alive()


def test_a_stream_that_is_not_there_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="name a file of JSON lines"):
        list(lines(str(tmp_path / "nothing"), False, threading.Event()))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("folow = true", "did you mean follow"), ('reference = "x.csv"', "name the adapter"),
        ('[webhook]\nurl = "http://10.0.0.1/x"', "on this machine"), ('[webhook]\nurl = "file:///etc/passwd"', "https"),
        ('topics = ["a", "a"]', "twice"), ("[limits]\nwindow = 1", "window"),
        ("[limits]\nleast_change = 0.0", "least_change"),
    ],
)  # fmt: skip
def test_a_file_with_a_fault_names_it(written: Callable[..., Path], text: str, fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        read_settings(written([], text))


def made(**more: Any) -> Watch:
    settings = MonitorSettings.model_validate(
        {"stream": "-", "watch": ["bad"], "limits": {"window": 20, "base_rate": 0.1}, **more}
    )
    return Watch(settings, clock=lambda: 0.0)


def test_the_page_escapes_shows_each_topic_and_is_refused_under_another_name() -> None:
    watch = made(topics=["<b>cards</b>", "loans"], watch=["<script>"])
    for place in range(60):
        watch.see(place < 40, "<b>cards</b>", f"s{place}")
    text = page(watch)
    assert "<script>" not in text
    assert "<b>cards" not in text
    assert text.count("<svg") == 1
    assert "Alarm: &lt;b&gt;cards" in text
    client = TestClient(make_app(lambda: page(watch)))
    answer = client.get("/")
    assert (answer.status_code, answer.headers["refresh"], answer.headers["x-frame-options"]) == (200, "5", "DENY")
    assert client.get("/", headers={"host": "evil.example"}).status_code == 400
    assert client.get("/health").json() == {"status": "alive"}


def test_the_page_is_served_on_this_machine_and_a_port_that_is_taken_is_said() -> None:
    import urllib.request

    server = PageServer(lambda: "<p>here</p>", 0)
    try:
        deadline = time.monotonic() + 20
        while not server._server.started and time.monotonic() < deadline:
            time.sleep(0.01)
        assert urllib.request.urlopen(server.address, timeout=5).read() == b"<p>here</p>"
        with pytest.raises(ConfigError, match="cannot be had"):
            PageServer(lambda: "", int(server.address.rsplit(":", 1)[1]))
    finally:
        server.close()


NOTICE = Notice("alarm", "cards", 3, 0.5, 0.1, 0.0)


@pytest.mark.parametrize(("statuses", "tries"), [([], 1), ([500, 503], 3), ([500] * 9, 3), ([404], 1), ([302], 1)])
def test_each_row_of_the_table_of_the_webhook(
    receiver: Any, statuses: list[int], tries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmchain_fl.monitor.webhook.WAIT_S", 0.01)
    receiver.statuses = list(statuses)
    teller = Teller(Webhook(url=f"http://127.0.0.1:{receiver.server_port}/"))
    teller.tell(NOTICE)
    teller.close()
    assert len(receiver.got) == tries


def test_a_receiver_that_is_not_there_holds_up_nothing(
    written: Callable[..., Path], stream: Callable[..., Any], caplog: Any
) -> None:
    file = written(stream([*CALM, *LOUD], 40), f'{LIMITS}[webhook]\nurl = "http://127.0.0.1:9/"\n')
    settings = read_settings(file)
    said: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("llmchain_fl.monitor.webhook.WAIT_S", 0.0)
        watch = watch_stream(settings, said.append)
    assert len(watch.notices) == 1
    assert "did not take a notice" in caplog.text


def test_an_adapter_says_the_labels_and_the_frozen_base_says_drift(
    small: Any, written: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With public records of another kind than the stream's the inputs drift, and what the adapter says is counted."""
    task = small.task(head="trained", moved=0.3)
    monkeypatch.setattr("llmchain_fl.cli.trained.find_adapter", lambda path: path)
    monkeypatch.setattr("llmchain_fl.cli.trained.open_trained", lambda path: (None, task))
    (tmp_path / "work.json").write_text(
        json.dumps({"task": {"kind": "classification", "labels": list(small.labels.items())}})
    )
    public = small.rows(400, seed=5)
    said = [answer[0][0] for answer in task.predict([row["text"] for row in public], 1)]
    label = max(set(said), key=said.count)
    for row, answer in zip(public, said, strict=True):
        row["label"] = answer
    (tmp_path / "public.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in public))
    entries = [{"text": row["text"]} for row in small.rows(80, seed=6)] + [{"text": "card"}] * 40
    more = "[limits]\nwindow = 40\nwarm_up = 1\ndrift_directions = 4\ndrift_chance = 1e-4\n"
    file = written(entries, f'adapter = "."\nreference = "public.jsonl"\n{more}')
    file.write_text(file.read_text().replace('"bad"', f'"{label}"'))
    watch = watch_stream(read_settings(file), lambda line: None)
    expected = [answer[0][0] == label for answer in task.predict([one["text"] for one in entries[:40]], 1)]
    assert watch.topics["all"].windows[0].observed == pytest.approx(sum(expected) / 40)
    assert watch.confusion.gap == 1.0
    assert [drift.chance < 1e-4 for drift in watch.drifts] == [False, False, True]
    assert watch.alarmed == ["inputs"]
    with pytest.raises(ConfigError, match="watch: bad"):
        watch_stream(read_settings(written(entries, 'adapter = "."\n')), lambda line: None)
