"""``docs/examples/nginx.conf``: what a SuperNode calls comes through, and no other path that a SuperLink answers.

The paths are those of the installed Flower. With a real nginx where one is installed, before a stand-in that says what
reached it.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from llmchain_fl.onprem.certificates import make_authority, make_server, utc_now
from llmchain_fl.onprem.reach import unreachable

CONF = Path(__file__).parents[2] / "docs/examples/nginx.conf"
NGINX = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
NOT_NEEDED = {"/v1/fleet/register-node", "/v1/fleet/unregister-node"}
"""A SuperLink that knows its sites by key refuses these two."""


def called() -> set[str]:
    """Paths that a SuperNode of the installed Flower calls."""
    from flwr.supernode import fleet_http_client

    source = Path(str(fleet_http_client.__file__)).read_text(encoding="utf-8")
    return set(re.findall(r'path="(/[^"]+)"', source))


def answered() -> set[str]:
    """Paths that a SuperLink of the installed Flower answers."""
    from flwr.superlink.main import create_app

    app = create_app()
    return {*app.openapi()["paths"], *(route.path for route in app.routes if hasattr(route, "path"))}


def let_through() -> re.Pattern[str]:
    """The location of the example, as it stands there."""
    (found,) = re.findall(r"location ~ (\^\S+\$) \{", CONF.read_text(encoding="utf-8"))
    return re.compile(found.replace("(?<", "(?P<"))


def test_the_example_names_what_a_supernode_calls_and_nothing_that_it_does_not() -> None:
    assert {path for path in called() if let_through().match(path)} == called() - NOT_NEEDED
    through = {path for path in answered() if let_through().match(path)}
    assert through == called() - NOT_NEEDED
    refused = answered() - through - {"/health"}
    assert {path.split("/")[2] for path in refused if path.startswith("/v1/")} >= {"control", "runtime", "fleet"}


class Proxy:
    """nginx by the example, before a stand-in over TLS. ``reached``: what came through, (method, path)."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.reached = folder, list[tuple[str, str]]()
        kit = folder / "kits" / "coordinator"
        kit.mkdir(parents=True)
        authority = make_authority("lab", utc_now())
        server = make_server(authority, ["127.0.0.1", "localhost"], utc_now(), 9)
        (kit / "ca.crt").write_bytes(authority.pem)
        (kit / "server.crt").write_bytes(server.pem)
        (kit / "server.key").write_bytes(server.key_pem)
        self.ca = kit / "ca.crt"
        self._link = self._superlink(kit)
        self.port = _free()
        self._nginx = self._started()

    def _superlink(self, kit: Path) -> ThreadingHTTPServer:
        reached = self.reached

        class Answers(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                self.rfile.read(int(self.headers.get("content-length", 0)))
                reached.append((self.command, self.path))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            do_GET = do_POST = do_PUT = answer

            def log_message(self, *told: object) -> None:
                """Quiet."""

        made = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(kit / "server.crt", kit / "server.key")
        made.socket = context.wrap_socket(made.socket, server_side=True)
        threading.Thread(target=made.serve_forever, daemon=True).start()
        return made

    def _started(self) -> subprocess.Popen[bytes]:
        text = CONF.read_text(encoding="utf-8").replace("kits/", f"{self.folder}/kits/")
        text = text.replace("127.0.0.1:8000", f"127.0.0.1:{self._link.server_port}")
        text = text.replace("203.0.113.7:8000", f"127.0.0.1:{self.port}").replace("fl.example.org", "localhost")
        temporary = "".join(
            f"{name}_temp_path {self.folder}/{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        text = text.replace("http {", f"http {{\naccess_log off;\n{temporary}")
        user = "user root;" if os.getuid() == 0 else ""  # its workers must write to the folder of this test
        (self.folder / "nginx.conf").write_text(f"{user}daemon off;\npid {self.folder}/pid;\n{text}")
        words = [str(NGINX), "-p", str(self.folder), "-e", str(self.folder / "error.log")]
        made = subprocess.Popen([*words, "-c", str(self.folder / "nginx.conf")])
        for _ in range(200):
            with socket.socket() as probe:
                if made.poll() is None and probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return made
            time.sleep(0.05)
        pytest.fail((self.folder / "error.log").read_text())

    def ask(self, method: str, path: str, size: int = 0) -> int:
        """The status of an answer. The path is sent as it is, dots and all."""
        context = ssl.create_default_context(cafile=str(self.ca))
        with (
            socket.create_connection(("127.0.0.1", self.port), timeout=20) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1") as secured,
        ):
            head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {size}\r\n\r\n"
            secured.sendall(head.encode() + bytes(size))
            return int(secured.recv(64).split()[1])

    def end_superlink(self) -> None:
        """Nobody listens behind the proxy from here on."""
        self._link.shutdown()
        self._link.server_close()

    def stop(self) -> None:
        self._nginx.terminate()
        self._nginx.wait(timeout=20)
        self.end_superlink()


def _free() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    if NGINX is None:
        pytest.skip("needs nginx (Debian: apt-get install nginx-light)")
    made = Proxy(tmp_path_factory.mktemp("proxy"))
    try:
        yield made
    finally:
        made.stop()


def test_nginx_lets_the_calls_of_a_supernode_through_and_refuses_every_other_path_of_a_superlink(proxy: Proxy) -> None:
    for path in sorted(called() | answered() | {"/", "/v1/fleet", "/v1/fleet/"}):
        proxy.reached.clear()
        allowed = path in called() - NOT_NEEDED
        assert proxy.ask("POST", path.replace("{", "").replace("}", "")) == (
            200 if allowed else 403 if path == "/health" else 404
        ), path
        assert proxy.reached == ([("POST", path)] if allowed else [])


@pytest.mark.parametrize(
    "path",
    [
        "/v1/fleet/../control/start-run",
        "/v1/fleet/%2e%2e/control/start-run",
        "/v1/control/start-run?/v1/fleet/get-run",
        "/v1/control/start-run#/v1/fleet/get-run",
        "/v1/fleet/get-run/../../control/start-run",
        "//v1//control/start-run",
        "/v1/fleet/get-run%0a",
        "/V1/FLEET/get-run/",
    ],
)
def test_no_way_of_writing_a_path_reaches_another_api(path: str, proxy: Proxy) -> None:
    proxy.reached.clear()
    proxy.ask("POST", path)
    assert all(let_through().match(reached) for _, reached in proxy.reached)


def test_only_posts_come_through_and_an_array_of_five_megabytes_does(proxy: Proxy) -> None:
    proxy.reached.clear()
    assert proxy.ask("GET", "/v1/fleet/get-run") == proxy.ask("PUT", "/v1/fleet/get-run") == 403
    assert proxy.reached == []
    assert proxy.ask("POST", "/v1/fleet/push-object", 6 << 20) == 200


def test_a_site_that_looks_whether_the_coordinator_is_there_finds_it_behind_the_proxy(proxy: Proxy) -> None:
    assert unreachable(f"127.0.0.1:{proxy.port}", proxy.ca, insecure=False) == ""
    assert (
        httpx.get(
            f"https://127.0.0.1:{proxy.port}/docs", verify=ssl.create_default_context(cafile=str(proxy.ca))
        ).status_code
        == 404
    )


def test_a_proxy_whose_coordinator_is_not_there_is_told_from_a_coordinator(proxy: Proxy) -> None:
    """The last test of this file: the stand-in ends."""
    proxy.end_superlink()
    assert "a proxy answers" in unreachable(f"127.0.0.1:{proxy.port}", proxy.ca, insecure=False)
