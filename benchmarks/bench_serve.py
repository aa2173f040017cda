"""Load on a server over loopback: 64 clients over 8 adapters, against the same server with one row a pass.

    python benchmarks/bench_serve.py                             # 64 clients, 60 s each
    python benchmarks/bench_serve.py --seconds 5 --clients 16
    python benchmarks/bench_serve.py --engine    # no server: processor time of a row, on a machine that others use too

Signed folders of made-up adapters over MiniLM-L6 (rank 8, all linear layers), a process for the server, one for the
clients, who send made-up texts of 4 to 40 words as fast as they are answered. Printed for each: requests a second, p50
and p99, the server's processor time of an answer, memory of the server before and after, its growth, answers by status.
`--engine` also has peft's own way, a request at a time with its adapter switched to, as a server without a bank would.
Exit code 1
where an answer is neither 200 nor 429, where memory grows by more than 5 %, or where batching is less than 3 times one
row a pass.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import bench  # noqa: F401  (the checkout comes first on the path)
import numpy as np
import psutil
import torch
from peft import PeftModel

from llmchain_fl.adapter.files import Lineage, write_adapter
from llmchain_fl.core.adapter import peft_model
from llmchain_fl.core.adapter.value import AdapterSpec
from llmchain_fl.core.base_digest import base_digest
from llmchain_fl.core.base_model import Base, BaseSpec, load_base, locate
from llmchain_fl.core.secure.identity import Identity
from llmchain_fl.core.tasks.spec import TaskSpec
from llmchain_fl.core.work import TrainSpec, WorkSpec, open_work
from llmchain_fl.hub import layout
from llmchain_fl.hub.sealing import seal
from llmchain_fl.hub.trust import trust_publisher
from llmchain_fl.serve.door import open_adapters
from llmchain_fl.serve.encoder import Encoder, Row
from llmchain_fl.serve.engine import open_engine
from llmchain_fl.serve.served import Opened
from llmchain_fl.serve.settings import read_settings
from llmchain_fl.serve.tokens import new_token, token_hash

ADAPTERS, RANK = 8, 8
BATCHES = {"one row a pass": 1, "16 rows a pass": 16}
WORDS = [
    *["card", "account", "transfer", "limit", "loan", "rate", "pin", "lost", "stolen", "payment", "refund", "fee"],
    *["charge", "balance", "statement", "exchange", "currency", "wallet", "top", "up", "pending", "declined"],
    *["cancelled", "verify", "identity", "passport", "address", "country", "abroad", "atm", "cash"],
]

LABELS = tuple((word, f"about {word}") for word in WORDS[:10])


@dataclass
class Load:
    """What the clients saw."""

    status: Counter[int] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)
    processor: float = 0.0
    took: float = 0.0

    @property
    def rate(self) -> float:
        """Answers with status 200 a second."""
        return self.status[200] / self.took

    def growth(self) -> float:
        """Mean memory of the last quarter over that of the second one: the first fills what is kept."""
        quarter = max(1, len(self.memory) // 4)
        return float(np.mean(self.memory[-quarter:]) / np.mean(self.memory[quarter : 2 * quarter])) - 1.0

    def line(self, name: str) -> str:
        """One row of the table."""
        low, high = np.percentile(self.seconds, [50, 99]) * 1000
        told = " ".join(f"{status}: {count}" for status, count in sorted(self.status.items()))
        memory = f"{self.memory[0] / 2**20:.0f} -> {self.memory[-1] / 2**20:.0f} MiB ({self.growth():+.1%})"
        cost = f"{1000 * self.processor / max(1, self.status[200]):6.2f} ms processor"
        return f"{name:16} {self.rate:8.1f} /s  p50 {low:7.1f} ms  p99 {high:7.1f} ms  {cost}  {memory}  {told}"


def make_hub(folder: Path) -> None:
    """Signed folders ``a1``, ``a2``, ... over MiniLM, and a machine that trusts their key."""
    identity, told = Identity(os.urandom(32)), work()
    trust_publisher(folder / "hub-home", "bench", identity.public)
    resident, _ = open_work(told.resident, told.task)
    digest = base_digest(Path(locate("minilm").path))
    for number in range(1, ADAPTERS + 1):
        place, draw = folder / f"a{number}", np.random.default_rng(number)
        arrays = {n: (v + 0.02 * draw.normal(size=v.shape)).astype(np.float32) for n, v in resident.arrays().items()}
        write_adapter(place, resident, arrays, told, Lineage("bench", 1, "first", ""))
        (place / layout.EVIDENCE).mkdir()
        for name in layout.REQUIRED:
            if not (place / name).exists():
                (place / name).write_text("{}")
        seal(place, identity, name=f"a{number}", version=1, base_name=resident.base.public_name, base_digest=digest)
    peft_model.detach(resident.base.module)


def work() -> WorkSpec:
    """A classifier of ten labels over MiniLM."""
    train = TrainSpec(1, 0.5, 8.0, 8, "adam", 0.9, 1)
    return WorkSpec(
        BaseSpec("minilm", device="cpu"),
        AdapterSpec(RANK, 2.0 * RANK),
        TaskSpec("classification", labels=LABELS),
        train,
    )


def serve_file(folder: Path, batch: int, token: str) -> Path:
    """The serve file of one of the two servers."""
    names = [f"a{number}" for number in range(1, ADAPTERS + 1)]
    adapters = "".join(f'[[adapter]]\nfolder = "{name}"\n' for name in names)
    text = f'port = 0\nbase = "minilm"\n{adapters}[tenant.bench]\ntokens = ["{token_hash(token)}"]\n'
    text += f"adapters = {json.dumps([f'{name}@1' for name in names])}\n[queue]\nbatch = {batch}\nrows = 256\n"
    file = folder / f"serve-{batch}.toml"
    file.write_text(text)
    return file


async def client(number: int, port: int, token: str, until: float, load: Load) -> None:
    """One connection, one request after the other."""
    draw = random.Random(number)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while time.perf_counter() < until:
        text = " ".join(draw.choices(WORDS, k=draw.randint(4, 40)))
        body = json.dumps({"input": text, "model": f"a{draw.randint(1, ADAPTERS)}@1"}).encode()
        head = f"POST /v1/classify HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n"
        head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        started = time.perf_counter()
        writer.write(head.encode() + body)
        status = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        await reader.readexactly(int(status.partition("content-length: ")[2].partition("\r\n")[0]))
        load.seconds.append(time.perf_counter() - started)
        load.status[int(status.split()[1])] += 1
    writer.close()


async def press(port: int, clients: int, seconds: float, token: str, server: psutil.Process) -> Load:
    """So many clients for so long; a first second that is not counted."""
    await asyncio.gather(*(client(k, port, token, time.perf_counter() + 1, Load()) for k in range(clients)))
    load, started, before = Load(), time.perf_counter(), sum(server.cpu_times()[:2])

    async def watch() -> None:
        while time.perf_counter() < started + seconds:
            load.memory.append(server.memory_info().rss)
            await asyncio.sleep(seconds / 40)

    await asyncio.gather(watch(), *(client(k, port, token, started + seconds, load) for k in range(clients)))
    load.took, load.processor = time.perf_counter() - started, sum(server.cpu_times()[:2]) - before
    return load


def measured(folder: Path, batch: int, clients: int, seconds: float) -> Load:
    """A server of its own process under load."""
    token = new_token()
    words = [sys.executable, "-m", "llmchain_fl", "serve", "up", str(serve_file(folder, batch, token))]
    server = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        ready = server.stdout.readline()
        if not ready.startswith("ready: "):
            raise SystemExit(f"the server did not start: {ready}")
        port = int(ready.split()[1].rstrip(",").rpartition(":")[2])
        return asyncio.run(press(port, clients, seconds, token, psutil.Process(server.pid)))
    finally:
        server.terminate()
        server.wait(60)


def engine() -> int:
    """Processor time of a row: one a pass, 16 a pass of rows of one kind and of 8 adapters, the base alone, peft."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        make_hub(Path(place))
        opened = open_adapters(read_settings(serve_file(Path(place), 16, new_token())))
        made = open_engine(opened, 16, load_base.__wrapped__)
        assert made.encoder is not None
        rows = alike(made.encoder)
        bare = [replace(row, adapter=0) for row in rows]
        ways = {"base alone, 16": (bare, 16), "one row a pass": (rows, 1), "16 rows a pass": (rows, 16)}
        cost = {name: passed(made.encoder, part, size) for name, (part, size) in ways.items()}
        made.bank.close()
        cost["peft, one at a time"] = switched(made.encoder.base, opened, rows)
    for name, seconds in cost.items():
        print(f"{name:20} {1000 * seconds:7.2f} ms a row")
    for name in ("one row a pass", "peft, one at a time"):
        print(f"batched over {name}: {cost[name] / cost['16 rows a pass']:.2f}x")
    return 0


def alike(encoder: Encoder) -> list[Row]:
    """Up to 32 rows of one kind, of all adapters in turn."""
    draw = random.Random(1)
    texts = [" ".join(draw.choices(WORDS, k=draw.randint(20, 22))) for _ in range(64)]
    rows = [encoder.encode(text, 1 + n % ADAPTERS, "mean", 64) for n, text in enumerate(texts)]
    kind = max({encoder.kind(row) for row in rows}, key=lambda one: sum(encoder.kind(row) == one for row in rows))
    rows = [row for row in rows if encoder.kind(row) == kind][:32]
    print(
        f"{len(rows)} rows of {kind[0]} tokens, {ADAPTERS} adapters, rank {RANK}; passes may have {encoder.sizes[kind]}"
    )
    return rows


def passed(encoder: Encoder, rows: Sequence[Row], size: int) -> float:
    """Processor time of a row in passes of ``size``, median of five."""
    spent = []
    for _ in range(5):
        before = time.process_time()
        for start in range(0, len(rows), size):
            encoder.vectors(rows[start : start + size])
        spent.append(time.process_time() - before)
    return float(np.median(spent)) / len(rows)


def switched(base: Base, opened: Sequence[Opened], rows: Sequence[Row]) -> float:
    """Processor time of a row where peft holds the adapters and switches to that of each request."""
    first, *others = [str(one.verified.folder) for one in opened]
    model = PeftModel.from_pretrained(base.module, first, adapter_name="1").eval()
    for number, folder in enumerate(others, 2):
        model.load_adapter(folder, adapter_name=str(number))
    spent = []
    for _ in range(3):
        before = time.process_time()
        for row in rows:
            model.set_adapter(str(row.adapter))
            ids = torch.from_numpy(row.ids)[None]
            with torch.inference_mode():
                model(input_ids=ids, attention_mask=torch.ones_like(ids))
        spent.append(time.process_time() - before)
    return float(np.median(spent)) / len(rows)


def main() -> int:
    """One server after the other."""
    told = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    told.add_argument("--seconds", type=float, default=60.0, help="of load, each")
    told.add_argument("--clients", type=int, default=64)
    told.add_argument("--engine", action="store_true", help="no server: processor time of a row")
    asked = told.parse_args()
    if asked.engine:
        return engine()
    clients, seconds = asked.clients, asked.seconds
    with tempfile.TemporaryDirectory() as place:
        make_hub(Path(place))
        print(f"{clients} clients, {ADAPTERS} adapters, {seconds:.0f} s each, {os.cpu_count()} cores")
        loads = {name: measured(Path(place), batch, clients, seconds) for name, batch in BATCHES.items()}
    for name, load in loads.items():
        print(load.line(name))
    one, many = loads.values()
    print(f"batched over one row a pass: {many.rate / one.rate:.2f}x")
    faults = [
        (any(set(load.status) - {200, 429} for load in loads.values()), "an answer is neither 200 nor 429"),
        (many.growth() > 0.05, "memory grows"),
        (many.rate < 3 * one.rate, "less than 3 times one row a pass"),
    ]
    for wrong, what in faults:
        if wrong:
            print(f"NOT REACHED: {what}")
    return int(any(wrong for wrong, _ in faults))


if __name__ == "__main__":
    sys.exit(main())
