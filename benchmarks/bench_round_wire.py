"""What a private round puts on the wire between a SuperLink and one site, and what it takes beside the training.

    python benchmarks/bench_round_wire.py [--rounds 6] [--only MiniLM]

Two sites with resident executors, without TLS; the first one's connection goes through a relay that counts bytes and
requests (Flower 1.41 speaks HTTP/1.1). Each arm is played with 2 and with ``--rounds`` rounds on one lab, and the
difference is divided by the difference of rounds: what a run costs once (the bundle, names) drops out.

* payload          the trained arrays of a round as float32, down and up
* wire             bytes both ways, with polls and heartbeats; the ratio to the payload is the figure
* beside training  seconds of a round less those of the slower site's train message, median over rounds after the first;
                   with MiniLM without scores on test records
"""

from __future__ import annotations

import argparse
import contextlib
import re
import shutil
import socket
import statistics
import tempfile
import threading
from pathlib import Path

from bench import ROOT, show, write
from bench_round_floor import HERE, LLMCHAIN_FL, Lab, tiny

ARMS: dict[str, dict[str, dict[str, object]]] = {
    "tiny BERT, 2 matrices": {"adapter": {"last_layers": 1, "targets": ["query", "value"], "rank": 2}},
    "tiny BERT, all linear": {"adapter": {"targets": "all-linear", "rank": 2}},
    "MiniLM, 2 matrices": {
        "model": {"path": "minilm", "max_tokens": 32},
        "adapter": {"last_layers": 1, "targets": ["query", "value"], "rank": 32},
        "train": {"steps": 8, "batch_size": 30},
        "data": {"test_every": 1000},
    },
    "MiniLM, all linear": {
        "model": {"path": "minilm", "max_tokens": 32},
        "adapter": {"targets": "all-linear", "rank": 8},
        "train": {"steps": 8, "batch_size": 30},
        "data": {"test_every": 1000},
    },
}
REQUEST = b" HTTP/1.1\r\n"
"""How the first line of a request ends."""


class Relay:
    """A port of this machine in front of another one."""

    def __init__(self, port: int) -> None:
        self.to, self.bytes, self.requests = port, 0, 0
        self._door = socket.create_server((HERE, 0))
        self.port = int(self._door.getsockname()[1])
        threading.Thread(target=self._open, daemon=True).start()

    def _open(self) -> None:
        while True:
            near, _ = self._door.accept()
            try:
                far = socket.create_connection((HERE, self.to))
            except OSError:  # the SuperLink is not up yet: who asks comes again
                near.close()
                continue
            for one, other, asks in ((near, far, True), (far, near, False)):
                threading.Thread(target=self._carry, args=(one, other, asks), daemon=True).start()

    def _carry(self, one: socket.socket, other: socket.socket, asks: bool) -> None:
        end = b""
        with contextlib.suppress(OSError):
            while data := one.recv(1 << 16):
                self.bytes += len(data)
                other.sendall(data)
                if asks:
                    self.requests += (end + data).count(REQUEST)
                    end = data[1 - len(REQUEST) :]
        other.close()


def sizes(run: Path) -> tuple[int, int]:
    """(arrays, bytes of the payload) of a round, of the adapter that the run wrote: what is trained, down and up."""
    from safetensors.numpy import load_file

    (file,) = run.glob("stages/*/adapter/adapter_model.safetensors")
    arrays = load_file(file)
    trained = [value.nbytes for name, value in arrays.items() if "lora_B" in name]
    return len(trained), 2 * sum(trained)


def play(lab: Lab, folder: Path, scenario: Path, rounds: int) -> str:
    """A run of so many rounds on a lab that is up; what was said."""
    app = folder / "llmchain-fl"
    if not app.exists():
        shutil.copytree(ROOT, app, ignore=shutil.ignore_patterns(".*", "__pycache__", "runs", "out", "_app"))
    said = lab.play(app, f'scenario="{scenario}" out="{folder / f"run{rounds}"}"')
    if len(re.findall(r"^round \d+/\d+ .*, ([\d.]+) s$", said, re.M)) != rounds:
        raise SystemExit(said[-3000:] + lab.logs()[-3000:])
    return said


def measured(sections: dict[str, dict[str, object]], rounds: int) -> dict[str, float]:
    """One arm."""
    folder = Path(tempfile.mkdtemp(prefix="wire-"))
    for count in (2, rounds):
        (folder / f"of{count}").mkdir()
    made = {count: tiny(folder / f"of{count}", count, False, **sections) for count in (2, rounds)}
    sites = made[2][1]
    lab = Lab(folder / "lab")
    relay, counted = Relay(lab.port), []
    try:
        lab.spawn(*LLMCHAIN_FL, "coordinator", "up", "--insecure", "--port", str(lab.port), resident=True)
        for site, port in zip(sites, (relay.port, lab.port), strict=True):
            lab.spawn(
                *LLMCHAIN_FL, "site", "up", str(site), "--insecure", "--superlink", f"{HERE}:{port}", resident=True
            )
        lab.wait(len(sites), len(sites) + 1)
        for count in (2, rounds):
            before = relay.bytes, relay.requests
            said = play(lab, folder, made[count][0], count)
            counted.append((relay.bytes - before[0], relay.requests - before[1]))
    finally:
        lab.stop()
    more = rounds - 2
    arrays, payload = sizes(folder / f"run{rounds}")
    walls: dict[int, float] = {}
    for number, wall in re.findall(r"train, round (\d+): .*?([\d.]+) s, [\d.]+ CPU s", lab.logs()):
        walls[int(number)] = max(walls.get(int(number), 0.0), float(wall))
    seconds = [float(one) for one in re.findall(r"^round \d+/\d+ .*, ([\d.]+) s$", said, re.M)]
    beside = [second - walls[number] for number, second in enumerate(seconds, 1) if number > 1]
    wire = (counted[1][0] - counted[0][0]) / more
    return {
        "arrays": arrays,
        "payload": payload,
        "wire": wire,
        "ratio": wire / payload,
        "requests": (counted[1][1] - counted[0][1]) / more,
        "round": statistics.median(seconds[1:]),
        "beside": statistics.median(beside),
    }


def main() -> None:
    """All arms."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--rounds", type=int, default=6)
    asked.add_argument("--only", default="")
    told = asked.parse_args()
    found = {name: measured(sections, told.rounds) for name, sections in ARMS.items() if told.only in name}
    header = (
        "arm",
        "arrays",
        "payload, kB",
        "wire, kB a round",
        "ratio",
        "requests a round",
        "a round, s",
        "beside, s",
    )
    lines = [
        (
            name,
            f"{one['arrays']:.0f}",
            f"{one['payload'] / 1e3:.1f}",
            f"{one['wire'] / 1e3:.1f}",
            f"{one['ratio']:.2f}",
            f"{one['requests']:.1f}",
            f"{one['round']:.2f}",
            f"{one['beside']:.2f}",
        )
        for name, one in found.items()
    ]
    show("one site of two, private rounds", header, lines)
    write("round_wire", found)


if __name__ == "__main__":
    main()
