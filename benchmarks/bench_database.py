"""Does a SuperLink that keeps its state in a file (``--database``) stand large updates of several sites at once?

    python benchmarks/bench_database.py [--megabytes 10] [--sites 3] [--rounds 5]

Flower's own processes and an app that does nothing but send as many bytes as an adapter has, each time others, all
sites at once. Printed for a SuperLink that keeps its state in memory (the baseline) and for one with a file: rounds,
replies, seconds a round, how the run ended, and how often ``database is locked`` stands in the SuperLink's log.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

APP = {
    "pyproject.toml": """
[project]
name = "echo"
version = "1.0.0"
license = "Apache-2.0"
dependencies = []
[tool.flwr.app]
publisher = "lab"
[tool.flwr.app.components]
serverapp = "echo.server:app"
clientapp = "echo.client:app"
[tool.flwr.app.config]
rounds = 0
sites = 0
megabytes = 0
out = ""
""",
    "LICENSE": "Apache-2.0",
    "README.md": "Bytes to and fro.",
    "echo/__init__.py": "",
    "echo/client.py": """
import os
from flwr.app import Array, ArrayRecord, Message, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message, context):
    size = len(message.content.array_records["arrays"]["packed"].data)
    content = {"arrays": ArrayRecord({"packed": Array("uint8", (size,), "raw", os.urandom(size))})}
    return Message(RecordDict(content), reply_to=message)
""",
    "echo/server.py": """
import json, os, time
from flwr.app import Array, ArrayRecord, Message, RecordDict
from flwr.serverapp import ServerApp

app = ServerApp()


@app.main()
def main(grid, context):
    told = context.run_config
    while len(nodes := sorted(grid.get_node_ids())) < told["sites"]:
        time.sleep(0.5)
    size = told["megabytes"] << 20
    for number in range(told["rounds"]):
        begun, data = time.time(), os.urandom(size)
        content = RecordDict({"arrays": ArrayRecord({"packed": Array("uint8", (size,), "raw", data)})})
        asked = [Message(content, dst_node_id=node, message_type="train", group_id=str(number)) for node in nodes]
        good = sum(not reply.has_error() for reply in grid.send_and_receive(asked, timeout=600))
        with open(told["out"], "a") as out:
            out.write(json.dumps({"replies": good, "seconds": time.time() - begun}) + "\\n")
""",
}
SWITCHES = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "OMP_NUM_THREADS": "1",
}


@dataclass(frozen=True)
class Outcome:
    """Of one run."""

    rounds: int
    replies: int
    seconds: float
    """A round, in the middle."""
    ended: str
    """What ``flwr list`` says of it."""
    locked: int
    """Lines of the SuperLink's log with ``database is locked``."""


class Link:
    """A SuperLink and its SuperNodes, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, _free()
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        self.environment = {**os.environ, **SWITCHES, "FLWR_HOME": str(folder / "flwr"), "PATH": path}
        (folder / "flwr").mkdir()
        address = f'address = "127.0.0.1:{self.port}"\ninsecure = true\n'
        (folder / "flwr" / "config.toml").write_text(f"[superlink.lab]\n{address}")
        for name, text in APP.items():
            file = folder / "echo" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)

    @contextlib.contextmanager
    def up(self, database: bool, sites: int) -> Iterator[None]:
        """Everything running."""
        kept = ["--database", str(self.folder / "state.db")] if database else []
        link = ["flower-superlink", "--insecure", "--disable-runtime-dependency-installation", "--port", str(self.port)]
        started = [self._spawn("superlink", *link, *kept)]
        try:
            self._await()
            for number in range(sites):
                node = ["flower-supernode", "--insecure", "--superlink", f"127.0.0.1:{self.port}"]
                words = [*node, "--host", "127.0.0.1", "--port", str(_free())]
                started.append(self._spawn(f"node-{number}", *words))
            yield
        finally:
            for process in started:
                process.terminate()
            for process in started:
                process.wait(timeout=90)

    def play(self, settings: str, wait: float) -> str:
        """One run; how it ended."""
        said = self._flwr("run", str(self.folder / "echo"), "lab", "--run-config", settings)
        number = said.partition("Successfully started run ")[2].split()[0]
        status, end = "", time.monotonic() + wait
        while not status.startswith("finished") and time.monotonic() < end:
            time.sleep(5)
            listed = json.loads(self._flwr("list", "lab", "--run-id", number, "--format", "json"))
            status = str(listed["runs"][0]["status"])
        return status

    def _flwr(self, *words: str) -> str:
        command = ["flwr", *words]
        done = subprocess.run(
            command, env=self.environment, cwd=self.folder, capture_output=True, text=True, check=False
        )
        return done.stdout

    def _spawn(self, name: str, *command: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen(command, env=self.environment, cwd=self.folder, stdout=log, stderr=log)

    def _await(self) -> None:
        for _ in range(600):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
            time.sleep(0.2)
        raise SystemExit((self.folder / "superlink.log").read_text())


def _free() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def measured(folder: Path, *, database: bool, megabytes: int, sites: int, rounds: int, wait: float = 900) -> Outcome:
    """One run over a SuperLink of its own."""
    link, out = Link(folder), folder / "rounds.jsonl"
    with link.up(database, sites):
        ended = link.play(f'rounds={rounds} sites={sites} megabytes={megabytes} out="{out}"', wait)
    told = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    seconds = sorted(one["seconds"] for one in told)
    log = (folder / "superlink.log").read_text(errors="replace")
    middle = seconds[len(seconds) // 2] if seconds else float("nan")
    replies = sum(one["replies"] for one in told)
    return Outcome(len(told), replies, middle, ended, log.count("database is locked"))


def main() -> None:
    """Memory, then a file."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, usual in (("--megabytes", 10), ("--sites", 3), ("--rounds", 5)):
        parser.add_argument(name, type=int, default=usual)
    told = vars(parser.parse_args())
    print("state      rounds  replies  s a round  ended                locked")
    for database in (False, True):
        with tempfile.TemporaryDirectory() as folder:
            one = measured(Path(folder), database=database, **told)
        state = "a file" if database else "in memory"
        print(f"{state:9}  {one.rounds:6}  {one.replies:7}  {one.seconds:9.1f}  {one.ended:19}  {one.locked:6}")


if __name__ == "__main__":
    main()
