"""Do readers and configuration keep their word on damaged files? Seeded mutants of every kind of file they take.

    python benchmarks/bench_mutants_files.py [--count 100000] [--seed 1]

Records (JSON lines, CSV, TSV, text, Parquet, saved data sets), label lists, configurations, site files and ``--set``
texts are damaged: bits flipped, parts cut, doubled, swapped with another file's, and what breaks parsers put in (3,000
brackets, 5,000 digits, half of a surrogate pair, NUL, quotes, offsets of -1). Each mutant goes through every door that
takes such a file. Counted are those accepted (``partly``: some records left out), refused (a ``LlmchainError``),
and wrong (must be none): any other exception, an error or count that quotes a record, two readers that disagree, a
configuration that does not survive its file. And the growth of this process, and the slowest mutant.

Needs no data. About ten minutes for 100,000 on one core.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import resource
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from llmchain_fl.config.read import apply_settings, build, read_config
from llmchain_fl.config.write import to_toml
from llmchain_fl.core.data.columns import only_labels
from llmchain_fl.core.data.readers import Dialect
from llmchain_fl.core.data.source import read_fitting
from llmchain_fl.core.errors import LlmchainError
from llmchain_fl.core.toml_file import parse_toml, read_toml
from llmchain_fl.data.label_list import read_label_list
from llmchain_fl.data.source import dialect_of, read_rows
from llmchain_fl.scenario import shipped

CANARY = "zebra"
"""Stands in every cell of every record; no error may hold it."""

LABELS = ("red", "blue")
BREAKERS = (
    *(b"[" * 3000, b'{"a":' * 3000, b"9" * 5000, b"-1", b"1e999", b"NaN", b"inf", b"\x00", b"\xff", b"\xed\xa0\x80"),
    *(b'"', b'""', b"'''", b"\n", b"\r", b"\r\n", b",", b"\t", b"\\", b"\\ud83d", b"\xef\xbb\xbf", b"\xff\xfe"),
    *(b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x00\x00\x00\x00", b"=", b"[[", b"]", b"{", b"}", b".", b"null"),
    *(b"0x" + b"f" * 40, b"9999-12-31", b"a." * 40, b" " * 200, b"x" * 140_000, b"true", b"\x1b[2J", b"[1:2]"),
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    *(0, -1, 1, 2**31, 2**63 - 1, 2**63, 10**5000, 1e308, -0.0, 5e-324, float("nan"), float("inf"), True, None, ""),
    *("x" * 10_000, "\x1b[2J\n", "\ud800", "0:99999999999", "0:999999", ["x"] * 50, [[[[]]]], {"a": {"b": 1}}, [{}]),
)  # fmt: skip


class Mutant(NamedTuple):
    """A damaged file (or, for ``setting`` and ``tree``, a value): which kind, its name, what it holds."""

    kind: str
    name: str
    content: Any


def records() -> list[dict[str, Any]]:
    """What every file of records holds."""
    return [
        {"text": f"{CANARY} {n}, said\nit", "label": LABELS[n % 2], "person": f"{CANARY}{n}", "n": n} for n in range(12)
    ]


def originals(folder: Path) -> list[Mutant]:
    """One of each kind, undamaged."""
    lines = "".join(json.dumps(record) + "\n" for record in records()).encode()
    plain = [{**record, "text": record["text"].replace("\n", " ")} for record in records()]
    head, tabbed = "\t".join(plain[0]), ["\t".join(map(str, row.values())) for row in plain]
    quoted = [",".join('"' + str(cell).replace('"', '""') + '"' for cell in row.values()) for row in records()]
    found = [
        Mutant("records", "a.jsonl", lines),
        Mutant("records", "a.csv", "\n".join([head.replace("\t", ","), *quoted]).encode()),
        Mutant("records", "a.tsv", "\n".join([head, *tabbed]).encode()),
        Mutant("records", "a.txt", "\n".join(row["text"] for row in plain).encode()),
        Mutant("labels", "l.json", json.dumps(list(LABELS)).encode()),
        Mutant("labels", "l.json", json.dumps(dict.fromkeys(LABELS, "a text")).encode()),
        Mutant("labels", "l.txt", "\n".join(f"{label}\ta text" for label in LABELS).encode()),
        Mutant("site", "site.toml", SITE.encode()),
        Mutant("setting", "", "train.lr=0.01"),
        Mutant("setting", "", 'stage.0.where={x = "y"}'),
        *(Mutant("config", "c.toml", path.read_bytes()) for path in shipped().values()),
        *(Mutant("tree", "", parse_toml(path.read_text(encoding="utf-8"))[0]) for path in shipped().values()),
    ]
    return found + _columnar(folder)


SITE = """name = "north"
state = "state"
[data]
train = "{stage}.csv"
columns = {text = "note", label = "ward", person = "id"}
[limits]
epsilon = 8.0
delta = 1e-5
units = ["person"]
"""


def _columnar(folder: Path) -> list[Mutant]:
    import datasets
    import pyarrow
    from pyarrow import parquet

    datasets.disable_progress_bars()
    table = pyarrow.Table.from_pylist(records())
    found = []
    for compression, dictionary in (("none", True), ("snappy", False), ("zstd", True)):
        file = io.BytesIO()
        parquet.write_table(table, file, compression=compression, use_dictionary=dictionary, row_group_size=5)
        found.append(Mutant("records", "a.parquet", file.getvalue()))
    datasets.Dataset.from_list(records()).save_to_disk(str(folder / "saved"))
    for file in sorted((folder / "saved").iterdir()):
        found.append(Mutant("saved", file.name, file.read_bytes()))
    return found


def mutants(seed: int, count: int, folder: Path, kinds: Sequence[str] = ()) -> Iterator[Mutant]:
    """``count`` mutants, the same for the same seed; the n-th does not depend on the others.

    Args:
        seed: which mutants.
        count: how many.
        folder: where a saved data set can lie, which is damaged one file at a time.
        kinds: only of these; empty: of all.
    """
    whole = originals(folder)
    kinds = kinds or sorted({one.kind for one in whole})
    for number in range(count):
        draw = random.Random(f"{seed}/{number}")
        kind = kinds[number % len(kinds)]
        one = draw.choice([one for one in whole if one.kind == kind])
        other = draw.choice([other.content for other in whole if isinstance(other.content, bytes)])
        if isinstance(one.content, bytes):
            yield one._replace(content=_damaged(one.content, other, draw))
        elif isinstance(one.content, str):
            yield one._replace(content=_damaged(one.content.encode(), other, draw).decode("utf-8", "surrogateescape"))
        else:
            yield one._replace(content=_grafted(one.content, draw))


def _damaged(data: bytes, other: bytes, draw: random.Random) -> bytes:
    for _ in range(draw.choice((1, 1, 2, 4, 16))):
        at = draw.randrange(len(data) + 1)
        end = min(len(data), at + draw.choice((1, 2, 8, 64)))
        change = draw.randrange(7)
        if change == 0:
            data = data[:at] + bytes([draw.randrange(256)]) + data[at + 1 :]
        elif change == 1 and at < len(data):
            data = data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :]
        elif change == 2:
            data = data[:at] + data[end:]
        elif change == 3:
            data = data[:at] + data[at:end] * 3 + data[end:]
        elif change == 4:
            start = draw.randrange(len(other) + 1)
            data = data[:at] + other[start : start + 40] + data[end:]
        elif change == 5:
            data = data[:at] if draw.random() < 0.1 else data[:at] + data[end:]
        else:
            data = data[:at] + draw.choice(BREAKERS) + data[at if draw.random() < 0.5 else end :]
    return data


def _grafted(tree: Any, draw: random.Random) -> Any:
    """A copy of a configuration with one to three values replaced, added or taken out."""
    copy: dict[str, Any] = json.loads(json.dumps(tree))
    for _ in range(draw.choice((1, 1, 2, 3))):
        node: Any = copy
        while isinstance(node, dict | list) and node:
            key = draw.choice(sorted(node)) if isinstance(node, dict) else draw.randrange(len(node))
            inner = node[key]
            if isinstance(inner, dict | list) and inner and draw.random() < 0.8:
                node = inner
                continue
            if draw.random() < 0.2 and isinstance(node, dict):
                node[draw.choice(("lr", "x", "\x1b", "", "a.b", "\ud800", "rounds"))] = draw.choice(VALUES)
            elif draw.random() < 0.1:
                del node[key]
            else:
                node[key] = draw.choice(VALUES)
            break
    return copy


def _read(path: Path) -> str:
    """Both ways of reading: what one leaves out, the other refuses; otherwise they agree."""
    dialect = dialect_of(path) if path.is_file() else Dialect()
    rows, left = read_fitting(str(path), mapping={}, required=("text", "label"), dialect=dialect)
    kept, others = only_labels(rows, LABELS)
    if CANARY in str(left + others):
        return "quotes a record"
    json.dumps(kept.records, ensure_ascii=False).encode()
    refused = False
    try:
        strict = read_rows(str(path), mapping={}, required=("text", "label"), split="train", seed=0)
    except LlmchainError as error:
        refused = True
        if CANARY in str(error):
            return "quotes a record"
    if refused != bool(left.total or not rows.records) or (not refused and strict.records != rows.records):
        return "two readers disagree"
    return "partly" if left.total else "accepted"


def _configured(tree: dict[str, Any]) -> str:
    config = build(tree)
    again, fault = parse_toml(to_toml(config))
    return "does not survive its file" if fault or build(again) != config else "accepted"


def _site(path: Path) -> object:
    from client.site import read_site

    return read_site(path)


def play(mutant: Mutant, folder: Path) -> str:
    """``accepted``, ``partly``, ``refused``, or what is wrong."""
    path = (folder / "saved" if mutant.kind == "saved" else folder) / mutant.name
    kept = path.read_bytes() if mutant.kind == "saved" else b""
    if isinstance(mutant.content, bytes):
        path.write_bytes(mutant.content)
    try:
        return _door(mutant, path)()
    except LlmchainError as error:
        return "quotes a record" if mutant.kind in ("records", "saved") and CANARY in str(error) else "refused"
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return f"untyped {type(error).__name__}: {error!s:.80}"
    finally:
        if kept:
            path.write_bytes(kept)


def _door(mutant: Mutant, path: Path) -> Callable[[], str]:
    plain = {"data": {"train": "x"}, "task": {"labels": ["a"]}, "stage": [{"name": "a"}]}
    doors: dict[str, Callable[[], object]] = {
        "records": lambda: _read(path),
        "saved": lambda: _read(path.parent),
        "labels": lambda: read_label_list(str(path)),
        "config": lambda: [read_config(path, ["stage.rounds=2"]), _configured(read_toml(path))][1],
        "site": lambda: _site(path),
        "setting": lambda: _configured(apply_settings(plain, [mutant.content])),
        "tree": lambda: _configured(mutant.content),
    }
    return lambda: found if isinstance(found := doors[mutant.kind](), str) else "accepted"


def drill(seed: int, count: int, kinds: Sequence[str] = ()) -> dict[str, Any]:
    """Play ``count`` mutants: outcomes by kind, what is wrong, the growth in MB, the slowest in seconds."""
    outcomes: Counter[tuple[str, str]] = Counter()
    wrong: list[str] = []
    slowest = 0.0
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home)
        before = 0
        for number, mutant in enumerate(mutants(seed, count, folder, kinds)):
            begun = time.perf_counter()
            outcome = play(mutant, folder)
            slowest = max(slowest, time.perf_counter() - begun)
            right = outcome in ("accepted", "partly", "refused")
            wrong += [] if right else [f"{seed}/{number} {mutant.kind} {mutant.name}: {outcome}"]
            outcomes[mutant.kind, outcome if right else "wrong"] += 1
            if number == min(50, count - 1):
                before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    growth = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return {"outcomes": outcomes, "wrong": wrong, "growth_mb": growth, "slowest_s": slowest}


def main() -> None:
    """See the module's docstring."""
    from bench import show

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    begun = time.perf_counter()
    found = drill(given.seed, given.count)
    outcomes = found["outcomes"]
    words, kinds = ("accepted", "partly", "refused", "wrong"), sorted({kind for kind, _ in outcomes})
    lines = [[kind, *(outcomes[kind, word] for word in words)] for kind in kinds]
    lines.append(["all", *(sum(outcomes[kind, word] for kind in kinds) for word in words)])
    show(f"{given.count:,} mutants of files, seed {given.seed}", ["kind", *words], lines)
    print(
        f"wrong {len(found['wrong'])}; growth {found['growth_mb']:.0f} MB; slowest {found['slowest_s']:.2f} s; "
        f"all {time.perf_counter() - begun:.0f} s"
    )
    for line in found["wrong"][:20]:
        print(line)
    raise SystemExit(bool(found["wrong"]))


if __name__ == "__main__":
    main()
