"""A coordinator and its sites as folders of one machine; loaded by the fixture ``kits``."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any


class Federation:
    """Folders of one machine; ``typed``: how many commands each of their owners has given."""

    def __init__(self, folder: Path, environment: dict[str, str], port: int = 0) -> None:
        self.folder, self.environment, self.port = folder, environment, port
        self.kit = folder / "kits" / "coordinator"
        self.typed = Counter[str]()
        self._up: list[subprocess.Popen[bytes]] = []

    def at(self, who: str) -> Path:
        """Where ``who`` types."""
        return self.folder / ("." if who == "coordinator" else who)

    def type(self, who: str, *words: str, code: int = 0) -> str:
        """A command that ends; its output."""
        self.typed[who] += 1
        done = subprocess.run(
            [sys.executable, "-P", "-m", "llmchain_fl", *words], env=self.environment, cwd=self.at(who),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=1500, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + self.logs()
        return done.stdout

    def up(self, who: str, *words: str, **more: str) -> subprocess.Popen[bytes]:
        """A command that stays; ``more``: for its environment."""
        self.typed[who] += 1
        with (self.folder / f"{who}.log").open("ab") as log:
            command = [sys.executable, "-P", "-m", "llmchain_fl", *words]
            self._up.append(
                subprocess.Popen(
                    command, env={**self.environment, **more}, cwd=self.at(who), stdout=log, stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            )  # fmt: skip
        return self._up[-1]

    def logs(self) -> str:
        """The ends of all logs."""
        return "\n".join(file.read_text(errors="replace")[-3000:] for file in sorted(self.folder.glob("*.log")))

    def stop(self) -> None:
        """Everything, gently."""
        for process in self._up:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        for process in self._up:
            process.wait(timeout=60)


def records(tiny: Any, folder: Path) -> None:
    """What a site has: note, department, patient."""
    folder.mkdir(mode=0o700)
    rows = [json.loads(line) for line in tiny.train.read_text().splitlines()]
    with (folder / "only.csv").open("w", newline="", encoding="utf-8") as file:
        told = [(row["text"], row["label"], row["person"]) for row in rows]
        csv.writer(file).writerows([("note", "department", "patient"), *told])
