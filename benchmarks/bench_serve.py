"""Load on a server over loopback: 64 clients over 8 adapters, against one request at a time.

    python benchmarks/bench_serve.py                             # 64 clients, 60 s each of three servers
    python benchmarks/bench_serve.py --seconds 5 --clients 16
    python benchmarks/bench_serve.py --engine    # no server: processor time of a row, on a machine that others use too

Signed folders of made-up adapters over MiniLM-L6 (rank 8, all linear layers), a process for the server, one for the
clients, who send made-up texts of 4 to 40 words as fast as they are answered. The servers differ in what the model's
thread does: peft's own way, a request at a time with its adapter switched to, as a server without a bank would; ours
with one row a pass; ours with BATCH rows. Printed for each: requests a second, p50 and p99, the server's processor time
of an answer, memory of the server before and after, its growth, answers by status. `--engine` has the same without a
server, and padded passes beside packed ones. Exit code 1 where an answer is neither 200 nor 429, where memory grows by
more than 5 %, or where batching is less than 3 times peft's one request at a time.
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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
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
from llmchain_fl.core.tasks.passes import Kind
from llmchain_fl.core.tasks.spec import TaskSpec
from llmchain_fl.core.work import TrainSpec, WorkSpec, open_work
from llmchain_fl.hub import layout
from llmchain_fl.hub.sealing import seal
from llmchain_fl.hub.trust import trust_publisher
from llmchain_fl.serve import up
from llmchain_fl.serve.bank import BARE
from llmchain_fl.serve.door import open_adapters
from llmchain_fl.serve.encoder import Encoder, Row
from llmchain_fl.serve.engine import Engine, open_engine
from llmchain_fl.serve.served import Opened
from llmchain_fl.serve.settings import read_settings
from llmchain_fl.serve.steady import sizes_up_to
from llmchain_fl.serve.tokens import new_token, token_hash

ADAPTERS, RANK = 8, 8
BATCH = 32
SWITCHED = "peft, switched"
OURS = f"{BATCH} rows a pass"
WAYS = {SWITCHED: 1, "one row a pass": 1, OURS: BATCH}
TURNS = 6
"""Of each server under load, after one another."""
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

    @property
    def cost(self) -> float:
        """Processor seconds of an answer."""
        return self.processor / max(1, self.status[200])

    def growth(self) -> float:
        """Mean memory of the last quarter over that of the second one: the first fills what is kept."""
        quarter = max(1, len(self.memory) // 4)
        return float(np.mean(self.memory[-quarter:]) / np.mean(self.memory[quarter : 2 * quarter])) - 1.0

    def line(self, name: str) -> str:
        """One row of the table."""
        low, high = np.percentile(self.seconds, [50, 99]) * 1000
        told = " ".join(f"{status}: {count}" for status, count in sorted(self.status.items()))
        memory = f"{self.memory[0] / 2**20:.0f} -> {self.memory[-1] / 2**20:.0f} MiB ({self.growth():+.1%})"
        cost = f"{1000 * self.cost:6.2f} ms processor"
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


def serve_file(folder: Path, way: str, token: str) -> Path:
    """The serve file of one of the servers."""
    names = [f"a{number}" for number in range(1, ADAPTERS + 1)]
    adapters = "".join(f'[[adapter]]\nfolder = "{name}"\n' for name in names)
    text = f'port = 0\nbase = "minilm"\n{adapters}[tenant.bench]\ntokens = ["{token_hash(token)}"]\n'
    text += f"adapters = {json.dumps([f'{name}@1' for name in names])}\n[queue]\nbatch = {WAYS[way]}\nrows = 256\n"
    file = folder / f"serve-{list(WAYS).index(way)}.toml"
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


async def press(server: Server, clients: int, seconds: float, load: Load) -> None:
    """So many clients for so long; a first second that is not counted."""
    port, token = server.port, server.token
    await asyncio.gather(*(client(k, port, token, time.perf_counter() + 1, Load()) for k in range(clients)))
    started, before = time.perf_counter(), sum(server.process.cpu_times()[:2])

    async def watch() -> None:
        while time.perf_counter() < started + seconds:
            load.memory.append(server.process.memory_info().rss)
            await asyncio.sleep(seconds / 10)

    await asyncio.gather(watch(), *(client(k, port, token, started + seconds, load) for k in range(clients)))
    load.took += time.perf_counter() - started
    load.processor += sum(server.process.cpu_times()[:2]) - before


@dataclass(frozen=True)
class Server:
    """One that answers, in a process of its own."""

    port: int
    token: str
    process: psutil.Process


@contextmanager
def standing(folder: Path, way: str) -> Iterator[Server]:
    """A server that answers in this way."""
    token = new_token()
    file = str(serve_file(folder, way, token))
    ours = ["-m", "llmchain_fl", "serve", "up", file]
    words = [sys.executable, *([__file__, "--switched", file] if way == SWITCHED else ours)]
    server = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        ready = server.stdout.readline()
        if not ready.startswith("ready: "):
            raise SystemExit(f"the server did not start: {ready}")
        port = int(ready.split()[1].rstrip(",").rpartition(":")[2])
        yield Server(port, token, psutil.Process(server.pid))
    finally:
        server.terminate()
        server.wait(60)


def pressed(folder: Path, clients: int, seconds: float) -> dict[str, Load]:
    """All servers at once, pressed in turns: what else the machine does comes to all of them."""
    loads = {way: Load() for way in WAYS}
    with ExitStack() as stack:
        servers = {way: stack.enter_context(standing(folder, way)) for way in WAYS}
        for _ in range(TURNS):
            for way, server in servers.items():
                asyncio.run(press(server, clients, seconds / TURNS, loads[way]))
    return loads


def engine() -> int:
    """Processor time of a row: packed, padded, one at a time, the base alone, peft."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        make_hub(Path(place))
        opened = open_adapters(read_settings(serve_file(Path(place), OURS, new_token())))
        made = open_engine(opened, BATCH, load_base.__wrapped__)
        encoder = made.encoder
        assert encoder is not None
        rows = mixed(encoder)
        padded = replace(encoder, packing=None)
        padded.sizes = {padded.kind(row): tuple(sizes_up_to(BATCH)) for row in rows}
        peft = Switched.over(encoder, opened)
        bare = [replace(row, adapter=BARE) for row in rows]
        ways: dict[str, tuple[Encoder, list[Row], int]] = {
            SWITCHED: (peft, rows, 1),
            "padded, one row": (padded, rows, 1),
            "packed, one row": (encoder, rows, 1),
            **{f"padded, {size} rows": (padded, rows, size) for size in (16, BATCH)},
            **{f"packed, {size} rows": (encoder, rows, size) for size in (16, BATCH, 64)},
            f"packed, base alone, {BATCH} rows": (encoder, bare, BATCH),
        }
        cost = times(ways)
    print(f"{len(rows)} rows of {np.mean([len(row.ids) for row in rows]):.1f} tokens, {ADAPTERS} adapters, rank {RANK}")
    for name, seconds in cost.items():
        print(f"{name:28} {1000 * seconds:7.2f} ms a row, {cost[SWITCHED] / seconds:.2f}x of {SWITCHED}")
    return 0


def mixed(encoder: Encoder) -> list[Row]:
    """64 rows of the lengths that clients send, of all adapters in turn."""
    draw = random.Random(1)
    texts = [" ".join(draw.choices(WORDS, k=draw.randint(4, 40))) for _ in range(64)]
    return [encoder.encode(text, 1 + n % ADAPTERS, "mean", 64) for n, text in enumerate(texts)]


def times(ways: Mapping[str, tuple[Encoder, Sequence[Row], int]]) -> dict[str, float]:
    """Processor time of a row each way, median of five turns through all of them."""
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(5):
        for name, (encoder, rows, size) in ways.items():
            kinds: dict[Kind, list[Row]] = {}
            for row in rows:
                kinds.setdefault(encoder.kind(row), []).append(row)
            before = time.process_time()
            for part in kinds.values():
                for start in range(0, len(part), size):
                    encoder.vectors(part[start : start + size])
            spent[name].append((time.process_time() - before) / len(rows))
    return {name: float(np.median(seconds)) for name, seconds in spent.items()}


class Switched(Encoder):
    """An encoder over peft, which holds the adapters and switches to that of each row."""

    model: PeftModel

    @classmethod
    def over(cls, encoder: Encoder, opened: Sequence[Opened]) -> Switched:
        """The same adapters over a base of its own."""
        made = cls(encoder.bank, encoder.longest, 1)
        first, *others = [str(one.verified.folder) for one in opened]
        base = load_base.__wrapped__(opened[0].base)
        made.model = PeftModel.from_pretrained(base.module, first, adapter_name="1").eval()
        for number, folder in enumerate(others, 2):
            made.model.load_adapter(folder, adapter_name=str(number))
        return made

    def vectors(self, rows: Sequence[Row]) -> list[torch.Tensor]:
        """Row after row."""
        found = []
        for row in rows:
            self.model.set_adapter(str(row.adapter))
            ids = torch.from_numpy(row.ids)[None]
            with torch.inference_mode():
                hidden = self.model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
            found.append(torch.nn.functional.normalize(hidden[0].mean(0), dim=-1))
        return found


def switched_server(file: str) -> int:
    """The server with peft's way in place of the bank; everything else is ours."""

    def over_peft(opened: Sequence[Opened], rows: int, load: Callable[[BaseSpec], Base]) -> Engine:
        made = open_engine(opened, rows, load)
        assert made.encoder is not None
        return replace(made, encoder=Switched.over(made.encoder, opened))

    up.open_engine = over_peft
    settings = read_settings(Path(file))
    up.open_server(settings, told=lambda http, grpc: print(f"ready: {http}, {grpc}", flush=True)).run()
    return 0


def main() -> int:
    """One server after the other."""
    told = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    told.add_argument("--seconds", type=float, default=60.0, help="of load, each")
    told.add_argument("--clients", type=int, default=64)
    told.add_argument("--engine", action="store_true", help="no server: processor time of a row")
    told.add_argument("--switched", default="", help=argparse.SUPPRESS)
    asked = told.parse_args()
    if asked.switched:
        return switched_server(asked.switched)
    if asked.engine:
        return engine()
    clients, seconds = asked.clients, asked.seconds
    with tempfile.TemporaryDirectory() as place:
        make_hub(Path(place))
        print(f"{clients} clients, {ADAPTERS} adapters, {seconds:.0f} s each, {os.cpu_count()} cores")
        loads = pressed(Path(place), clients, seconds)
    for name, load in loads.items():
        print(load.line(name))
    many = loads[OURS]
    for name in (SWITCHED, "one row a pass"):
        rates, costs = many.rate / loads[name].rate, loads[name].cost / many.cost
        print(f"batched over {name}: {rates:.2f}x, by processor time {costs:.2f}x")
    faults = [
        (any(set(load.status) - {200, 429} for load in loads.values()), "an answer is neither 200 nor 429"),
        (many.growth() > 0.05, "memory grows"),
        (many.rate < 3 * loads[SWITCHED].rate, f"less than 3 times {SWITCHED}"),
    ]
    for wrong, what in faults:
        if wrong:
            print(f"NOT REACHED: {what}")
    return int(any(wrong for wrong, _ in faults))


if __name__ == "__main__":
    sys.exit(main())
