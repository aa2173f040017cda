"""A federation of three sites that runs for long, and ways to hurt it; loaded by the fixture ``fault_lab``.

``west`` reaches the coordinator through ``Wire``, which can be cut. State folder of ``west`` and folder of the runs lie
on small file systems of their own, where this account may mount such.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from client.site import read_site
from llmchain_fl.audit_log import read_log
from llmchain_fl.core.audit import FILE
from llmchain_fl.run_dir import RunDir

NAMES = ("north", "south", "west")
PAGE = """
name = "lab"
address = "localhost:{port}"
scenario = "scenario.toml"
[data]
columns = {{ text = "note", label = "department", person = "patient" }}
[limits]
epsilon = 1000.0
[sites.north]
[sites.south]
[sites.west]
"""
PATIENCE = 420.0
"""Seconds after which a scenario is given up: the machine may be busy."""


class Wire:
    """Between a site and the coordinator: cut, nothing goes through and connections stay open, as with a firewall."""

    def __init__(self, port: int, target: int) -> None:
        self.through, self._target = True, target
        self._listener = socket.create_server(("127.0.0.1", port))
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            one, _ = self._listener.accept()
            threading.Thread(target=self._carry, args=(one,), daemon=True).start()

    def _carry(self, one: socket.socket) -> None:
        with one, contextlib.suppress(OSError):
            while not self.through:
                time.sleep(0.2)
            with socket.create_connection(("127.0.0.1", self._target)) as other:
                pairs = {one: other, other: one}
                while True:
                    for ready in select.select(list(pairs), [], [], 0.5)[0]:
                        data = ready.recv(1 << 16)
                        while not self.through:  # held back, as long as the wire is cut
                            time.sleep(0.2)
                        if not data:
                            return
                        pairs[ready].sendall(data)


class Lab:
    """``federation``: of ``of_kits.py``; ``up``: who -> its supervisor."""

    def __init__(self, federation: Any, kits: Any, tiny: Any, ports: tuple[int, int], model: Path) -> None:
        self.one, self._kits, self._tiny, self._ports = federation, kits, tiny, ports
        self.up: dict[str, subprocess.Popen[bytes]] = {}
        self.wire = Wire(ports[1], ports[0])
        self._mounted: list[Path] = []
        self.out = Path()

    @property
    def port(self) -> int:
        """Of the coordinator."""
        return self._ports[0]

    # -- up and down --------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Kits, and everybody up; the coordinator keeps its state in a file."""
        one = self.one
        (one.folder / "federation.toml").write_text(PAGE.format(port=self._ports[0]))
        one.type("coordinator", "provision", "federation.toml", "--out", "kits")
        for name in NAMES:
            place = one.folder / "kits" / "sites" / name
            place.rename(one.at(name))
            self._kits.records(self._tiny, one.at(name) / "records")
        self.edit("west", "kit.toml", f"localhost:{self._ports[0]}", f"localhost:{self._ports[1]}")
        self.mount(one.kit / "runs", 48)
        self.mount(one.at("west") / "state", 4)
        self.coordinator()
        for name in NAMES:
            self.site(name)

    def coordinator(self, database: bool = True) -> None:
        more = ("--database", str(self.one.kit / "superlink.db")) if database else ()
        self.up["coordinator"] = self.one.up("coordinator", "coordinator", "up", "kits/coordinator", *more)

    def site(self, name: str, **more: str) -> None:
        self.up[name] = self.one.up(name, "site", "up", **more)

    def down(self, who: str, number: int = signal.SIGTERM) -> None:
        """End a supervisor, by default gently."""
        self.up[who].send_signal(number)
        self.up[who].wait(timeout=90)

    def close(self) -> None:
        self.one.stop()
        for place in self._mounted:
            subprocess.run(["umount", "-l", str(place)], check=False)

    def mount(self, place: Path, megabytes: int) -> None:
        """A small file system; nothing where this account may not."""
        place.mkdir(mode=0o700, exist_ok=True)
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=700", "tmpfs", str(place)],
                              capture_output=True, check=False)  # fmt: skip
        self._mounted += [place] if not done.returncode else []

    def fill(self, place: Path) -> Path:
        """Leave no byte on the file system of ``place``; the file that takes them."""
        if place not in self._mounted:
            pytest.skip("a small file system needs an account that may mount one")
        filler = place / "filler"
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(b"\0" * 4096)
        return filler

    # -- runs ---------------------------------------------------------------------------------------------------------

    def run(self, rounds: int = 500, **settings: float) -> subprocess.Popen[bytes]:
        """``coordinator run`` to its end; ``self.out``: its folder."""
        known = set((self.one.kit / "runs").glob("lab-*"))
        told = {"stage.rounds": rounds, **{name.replace("__", "."): value for name, value in settings.items()}}
        words = [word for name, value in told.items() for word in ("--set", f"{name}={value}")]
        process = self.one.up("run", "coordinator", "run", str(self.one.kit), *words)
        self.until(lambda: bool(set((self.one.kit / "runs").glob("lab-*")) - known))
        self.out = max((self.one.kit / "runs").glob("lab-*"), key=lambda path: int(path.name.partition("-")[2]))
        self.until(lambda: self.rounds() > 0)
        return process

    def resume(self) -> subprocess.Popen[bytes]:
        return self.one.up("run", "coordinator", "run", str(self.one.kit), "--resume", str(self.out))

    def end(self, process: subprocess.Popen[bytes]) -> None:
        """Stop the run by the operator's command; its follower says so."""
        self.one.type("coordinator", "coordinator", "stop", str(self.one.kit), str(self.out))
        process.wait(timeout=PATIENCE)

    def rows(self) -> list[dict[str, Any]]:
        return RunDir(self.out).rows() if (self.out / "metrics.jsonl").exists() else []

    def rounds(self) -> int:
        """Finished rounds."""
        return max((row["round"] for row in self.rows() if row["metric"] == "seconds"), default=0)

    def last(self, site: str, metric: str = "bytes_up") -> int:
        """The last round in which there is a row of this site."""
        return max((row["round"] for row in self.rows() if (row["metric"], row["site"]) == (metric, site)), default=0)

    def said(self, who: str) -> str:
        """The log of a supervisor, or of the command ``run``."""
        file = self.one.folder / f"{who}.log"
        return file.read_text(errors="replace") if file.exists() else ""

    def until(self, done: Callable[[], bool], limit: float = PATIENCE) -> float:
        """Seconds until ``done()``."""
        begun = time.monotonic()
        while not done():
            if time.monotonic() > begun + limit:
                pytest.fail(f"not within {limit:.0f} s\n{self.one.logs()}")
            time.sleep(0.3)
        return time.monotonic() - begun

    def process(self, who: str, module: str) -> psutil.Process:
        """The child of a supervisor that runs ``module``."""
        for one in psutil.Process(self.up[who].pid).children():
            if any(word.endswith(module) for word in one.cmdline()):
                return one
        pytest.fail(f"{who} has no {module}")

    def edit(self, who: str, file: str, old: str, new: str) -> None:
        """Change a file of a kit."""
        path = self.one.at(who) / file
        text = path.read_text()
        assert re.search(old, text), text
        path.write_text(re.sub(old, new, text, count=1))

    # -- laws ---------------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """No finished round is lost, nothing let out is unpaid, and the server's book holds all that was let out."""
        rounds = [row["round"] for row in self.rows() if row["metric"] in ("seconds", "skipped") and row["round"]]
        assert rounds == list(range(1, len(rounds) + 1))
        told = RunDir(self.out).read_privacy()["sites"]
        run = {line["run"] for line in read_log(RunDir(self.out).audit / FILE) if line["type"] == "asked"} - {""}
        for name in NAMES:
            site = read_site(self.one.at(name) / "site.toml")
            answered = [line for line in read_log(site.audit.file) if line["type"] == "answered"]
            out = {
                (line["run"], line["round"])
                for line in answered
                if (line["kind"], line["decision"]) == ("train", "answered")
            }
            paid = sum(event.steps for event in site.open_ledger("person").spent().events)
            assert paid >= 2 * len(out), name
            assert told.get(name, {"rounds": 0})["rounds"] >= sum(one in run for one, _ in out), name


def alive(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False
