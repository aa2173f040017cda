"""Inconsistencies to plant: kinds x places, each with the codes by which the verifier may name it.

Two tables. ``DAMAGE``: a file is altered by somebody without the keys. ``FORGED``: a log, a statement or a number is
altered by somebody who holds every key, writes the chain anew and signs it: only what one part says of another is left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

Plant = tuple[str, set[str], Callable[[Any], None]]
"""Name, codes of which one must be found, and what is done to the archive (``conftest.Forger``)."""
SITES = ("site-00", "site-02")
OTHER = "0" * 64


def first(lines: list[dict[str, Any]], /, skip: int = 0, **wanted: Any) -> dict[str, Any]:
    """The entry with these values, after ``skip`` others."""
    return [line for line in lines if all(line.get(name) == value for name, value in wanted.items())][skip]


def _logs() -> Iterator[str]:
    yield "run/audit.jsonl"
    for site in SITES:
        yield f"sites/{site}/audit.jsonl"
        yield f"sites/{site}/ledger.jsonl"


# -- without the keys -------------------------------------------------------------------------------------------------


def _flip(name: str) -> Callable[[Any], None]:
    def plant(forger: Any) -> None:
        data = bytearray(forger.files[name])
        data[len(data) // 2] ^= 1
        forger.files[name] = bytes(data)

    return plant


def _drop(name: str) -> Callable[[Any], None]:
    return lambda forger: forger.files.pop(name)  # type: ignore[no-any-return]


def _raw(name: str, change: Callable[[list[bytes]], None]) -> Callable[[Any], None]:
    """Lines changed, every digest and signature brought up to date, the chain not."""

    def plant(forger: Any) -> None:
        lines = forger.files[name].splitlines(keepends=True)
        change(lines)
        forger.files[name] = b"".join(lines)
        forger.sign()

    return plant


def _swap(lines: list[bytes]) -> None:
    lines[2], lines[3] = lines[3], lines[2]


def _reword(lines: list[bytes]) -> None:
    lines[2] = lines[2].replace(b'"time":"20', b'"time":"19')


RAW: dict[str, Callable[[list[bytes]], None]] = {
    "a line taken out": lambda lines: lines.pop(2) and None,
    "a line twice": lambda lines: lines.insert(2, lines[2]),
    "two lines swapped": _swap,
    "a word of a line": _reword,
    "the first line gone": lambda lines: lines.pop(0) and None,
}


def damage() -> Iterator[Plant]:
    names = [
        f"run/{name}" for name in ("config.toml", "privacy.json", "audit.jsonl", "code.json", "sbom.json", "gate.json")
    ]
    names += [f"sites/{site}/{part}" for site in SITES for part in ("audit.jsonl", "ledger.jsonl")]
    for name in names:
        yield f"a bit of {name}", {"digest"}, _flip(name)
        yield f"{name} gone", {"digest"}, _drop(name)
    signed = [*(f"sites/{site}/statement" for site in SITES), "manifest"]
    for name in signed:
        yield f"a bit of {name}.json", {"signature", "form", "archive"}, _flip(f"{name}.json")
        yield f"a bit of {name}.sig", {"signature"}, _flip(f"{name}.sig")
        yield f"{name}.sig gone", {"archive"}, _drop(f"{name}.sig")
    yield "a file more", {"digest"}, lambda forger: forger.files.update({"run/more.txt": b"x"})
    for name in _logs():
        for kind, change in RAW.items():
            yield f"{name}: {kind}", {"chain"}, _raw(name, change)


# -- with every key ---------------------------------------------------------------------------------------------------


def _lines(name: str, change: Callable[[list[dict[str, Any]]], Any]) -> Callable[[Any], None]:
    def plant(forger: Any) -> None:
        forger.lines(name, change)
        forger.sign()

    return plant


def _json(name: str, change: Callable[[Any], Any]) -> Callable[[Any], None]:
    def plant(forger: Any) -> None:
        forger.json(name, change)
        forger.sign()

    return plant


def _field(name: str, field: str, value: Any, **wanted: Any) -> Callable[[Any], None]:
    """One field of one line; ``ledger.X`` is a field of how the ledger stood. A function is given the old value."""

    def change(lines: list[dict[str, Any]]) -> None:
        line = first(lines, **wanted)
        outer, _, inner = field.rpartition(".")
        place = line[outer] if outer else line
        place[inner] = value(place[inner]) if callable(value) else value

    return _lines(name, change)


def _remove(name: str, **wanted: Any) -> Callable[[Any], None]:
    return _lines(name, lambda lines: lines.remove(first(lines, **wanted)))


def _twice(name: str, **wanted: Any) -> Callable[[Any], None]:
    return _lines(name, lambda lines: lines.insert(lines.index(first(lines, **wanted)), first(lines, **wanted)))


TRAINED = {"type": "answered", "kind": "train", "round": 2}
SCORED = {"type": "answered", "kind": "evaluate"}


def at_site(site: str) -> Iterator[Plant]:
    log = f"sites/{site}/audit.jsonl"
    yield f"{site}: less epsilon", {"epsilon"}, _field(log, "ledger.epsilon", lambda old: 0.9 * old, **TRAINED)
    yield f"{site}: more epsilon", {"epsilon"}, _field(log, "ledger.epsilon", lambda old: 1.02 * old, **TRAINED)
    yield f"{site}: other epsilon before", {"epsilon"}, _field(log, "before", 0.01, **TRAINED)
    yield f"{site}: epsilon of nobody", {"epsilon"}, _field(log, "ledger.profiles", [], **TRAINED)
    yield f"{site}: other delta", {"limit"}, _field(log, "ledger.delta", 1e-3, **SCORED)
    yield f"{site}: other unit", {"limit"}, _field(log, "ledger.unit", "record", **SCORED)
    yield f"{site}: other accountant", {"limit"}, _field(log, "ledger.accountant", "rdp", **SCORED)
    yield f"{site}: others trusted", {"limit"}, _field(log, "ledger.counted_peers", 2, **SCORED)
    yield f"{site}: earlier ledger", {"ledger"}, _field(log, "ledger.seq", 1, **SCORED)
    yield f"{site}: no such ledger", {"ledger"}, _field(log, "ledger.head", OTHER, **SCORED)
    yield f"{site}: other reply", {"reply"}, _field(log, "reply", OTHER, **TRAINED)
    yield f"{site}: longer reply", {"reply"}, _field(log, "reply_bytes", 9, **TRAINED)
    yield f"{site}: other task", {"task"}, _field(log, "task", OTHER, **TRAINED)
    yield f"{site}: longer task", {"task"}, _field(log, "task_bytes", 9, **TRAINED)
    yield f"{site}: other work", {"task"}, _field(log, "work", OTHER, **TRAINED)
    yield f"{site}: other round", {"reply"}, _field(log, "round", 7, **TRAINED)
    yield f"{site}: a refusal that cost", {"unpaid"}, _field(log, "decision", "budget", **TRAINED)
    yield f"{site}: other settings unsaid", {"policy"}, _field(log, "policy", OTHER, **TRAINED)
    yield f"{site}: another's log", {"form"}, _field(log, "name", "site-01", type="open")
    yield f"{site}: update not told", {"reply"}, _remove(log, **TRAINED)
    yield f"{site}: scores not told", {"reply"}, _remove(log, **SCORED)
    yield f"{site}: update told twice", {"reply"}, _twice(log, **TRAINED)
    yield f"{site}: a line of the coordinator", {"chain"}, _field(log, "type", "asked", **TRAINED)


def in_ledger(site: str) -> Iterator[Plant]:
    log, line = f"sites/{site}/ledger.jsonl", {"type": "reserve", "purpose": "training"}

    def event(name: str, factor: float) -> Callable[[Any], None]:
        def change(lines: list[dict[str, Any]]) -> None:
            told = first(lines, **line)["charges"][0]["event"]
            told[name] = type(told[name])(factor * told[name])

        return _lines(log, change)

    def round_gone(lines: list[dict[str, Any]]) -> None:
        key = first(lines, **line)["key"]
        lines[:] = [one for one in lines if one.get("key") != key]

    yield f"{site}: charged for more noise", {"charge"}, event("noise_multiplier", 1.1)
    yield f"{site}: charged for a lower rate", {"charge"}, event("sampling_rate", 0.5)
    yield f"{site}: charged for fewer steps", {"charge"}, event("steps", 0.5)
    yield (
        f"{site}: another group",
        {"epsilon"},
        _lines(log, lambda lines: first(lines, **line)["charges"][0].update(group="x/training")),
    )
    yield f"{site}: another plan", {"plan"}, _field(log, "plan", OTHER, **line)
    yield f"{site}: not paid", {"ledger"}, _remove(log, **line)
    yield f"{site}: not sealed", {"unpaid"}, _remove(log, type="seal")
    yield f"{site}: a round gone", {"unpaid"}, _lines(log, round_gone)
    yield f"{site}: paid twice", {"ledger"}, _twice(log, **line)
    yield f"{site}: sealed twice", {"ledger"}, _twice(log, type="seal")
    yield f"{site}: another unit", {"limit"}, _field(log, "unit", "record", type="open")
    yield f"{site}: another's ledger", {"form"}, _field(log, "site", "site-01", type="open")


def declared(site: str) -> Iterator[Plant]:
    place = f"sites/{site}/statement.json"
    changes: dict[str, tuple[set[str], Callable[[Any], Any]]] = {
        "a lower limit": ({"limit"}, lambda told: told["limits"].update(epsilon=0.5)),
        "another delta": ({"limit"}, lambda told: told["limits"].update(delta=1e-6)),
        "another base model": ({"model"}, lambda told: told["limits"].update(base_models=[f"sha256:{OTHER}"])),
        "other code": ({"code"}, lambda told: told.update(code=OTHER)),
        "another identity": ({"identity"}, lambda told: told.update(identity=f"ed25519:{OTHER}")),
        "another site file": ({"policy"}, lambda told: told.update(policy=OTHER)),
        "another name": ({"form"}, lambda told: told.update(site="site-01")),
        "other peers": ({"limit"}, lambda told: told["secure"].update(peers={"x": "y"})),
        "a field more": ({"form"}, lambda told: told.update(more=1)),
    }
    for kind, (codes, change) in changes.items():
        yield f"{site} declares {kind}", codes, _json(place, change)


def at_coordinator(site: str) -> Iterator[Plant]:
    log = "run/audit.jsonl"
    got = {"type": "received", "kind": "train", "round": 2, "site": site}
    asked = {**got, "type": "asked"}

    def both(change: Callable[[dict[str, Any]], Any]) -> Callable[[Any], None]:
        return _lines(log, lambda lines: [change(first(lines, **one)) for one in (got, asked)])

    def lose(lines: list[dict[str, Any]]) -> None:
        line = first(lines, **got)
        line["type"] = "lost"
        for name in ("decision", "reply", "reply_bytes"):
            del line[name]

    def forget(lines: list[dict[str, Any]]) -> None:
        for one in (got, asked):
            lines.remove(first(lines, **one))

    yield f"coordinator: {site} another reply", {"reply"}, _field(log, "reply", OTHER, **got)
    yield f"coordinator: {site} a longer reply", {"reply"}, _field(log, "reply_bytes", 9, **got)
    yield f"coordinator: {site} refused", {"reply"}, _field(log, "decision", "budget", **got)
    yield f"coordinator: {site} another task", {"task"}, both(lambda line: line.update(task=OTHER))
    yield f"coordinator: {site} another work", {"task"}, _field(log, "work", OTHER, **asked)
    yield f"coordinator: {site} a longer task", {"task"}, _field(log, "task_bytes", 9, **asked)
    yield f"coordinator: {site} another round", {"reply"}, both(lambda line: line.update(round=9))
    yield f"coordinator: {site} another run", {"pairing"}, both(lambda line: line.update(run="x"))
    yield f"coordinator: {site} a reply to nothing", {"pairing"}, _twice(log, **got)
    yield f"coordinator: {site} a reply not told", {"pairing"}, _remove(log, **got)
    yield f"coordinator: {site} a task not told", {"pairing"}, _remove(log, **asked)
    yield f"coordinator: {site} a reply lost that was acknowledged", {"reply"}, _lines(log, lose)
    yield f"coordinator: {site} a round not told", {"reply"}, _lines(log, forget)
    yield f"coordinator: {site} another's reply", {"pairing"}, _field(log, "site", "site-01", **got)


def in_the_book(site: str) -> Iterator[Plant]:
    def of(change: Callable[[Any], Any]) -> Callable[[Any], None]:
        return _json("run/privacy.json", lambda told: change(told["sites"][site]))

    yield f"book: {site} less epsilon", {"epsilon"}, of(lambda one: one.update(epsilon=0.9 * one["epsilon"]))
    yield f"book: {site} no bound", {"epsilon"}, of(lambda one: one.update(epsilon=None))
    yield f"book: {site} less by Renyi", {"epsilon"}, of(lambda one: one.update(epsilon_rdp=0.95 * one["epsilon_rdp"]))
    yield f"book: {site} more by Renyi", {"epsilon"}, of(lambda one: one.update(epsilon_rdp=1.1 * one["epsilon_rdp"]))
    yield f"book: {site} other rounds", {"count"}, of(lambda one: one.update(rounds=3))
    yield f"book: {site} other steps", {"count"}, of(lambda one: one.update(steps=1))
    yield f"book: {site} fewer rounds paid", {"count"}, of(lambda one: one["groups"].update(training=3))
    yield f"book: {site} more rounds paid", {"count"}, of(lambda one: one["groups"].update(training=5))
    yield f"book: {site} fewer scores", {"count"}, of(lambda one: one["groups"].update({"held-out": 1}))


def of_the_run() -> Iterator[Plant]:
    log = "run/audit.jsonl"

    def plan(**changes: Any) -> Callable[[Any], None]:
        return _json("run/privacy.json", lambda told: told.update(changes))

    def settings(forger: Any) -> None:
        forger.files["run/config.toml"] = forger.files["run/config.toml"].replace(b"delta = 1e-05", b"delta = 1e-06")
        forger.lines(log, lambda lines: [line.update(policy=_sha(forger)) for line in lines])
        forger.sign()

    def resigned(forger: Any) -> None:
        forger.keys[""] = forger.keys["site-01"]
        forger.json("manifest.json", lambda told: told.update(identity=forger.keys[""].public))
        forger.sign()
        forger.keys[""] = forger.keys["honest"]

    def another_site(forger: Any) -> None:
        forger.pinned = {"site-00": f"ed25519:{OTHER}"}

    manifest: dict[str, tuple[set[str], Callable[[Any], Any]]] = {
        "another key": ({"identity"}, lambda told: told.update(identity=f"ed25519:{OTHER}")),
        "another run": ({"pairing"}, lambda told: told.update(run="x")),
        "other code": ({"code"}, lambda told: told["code"].update(server=OTHER)),
        "another site's key": ({"signature"}, lambda told: told["sites"].update({"site-00": f"ed25519:{OTHER}"})),
        "a field more": ({"form"}, lambda told: told.update(more=1)),
    }
    yield "settings changed after the run", {"policy"}, _raw("run/config.toml", lambda lines: lines.append(b"# x\n"))
    yield "settings changed, and the log with them", {"plan"}, settings
    yield "other settings unsaid", {"policy"}, _field(log, "policy", OTHER, type="asked")
    yield "plan: more noise", {"plan"}, plan(noise_multiplier=2.0)
    yield "plan: a lower rate", {"plan"}, plan(sampling_rate=0.01)
    yield "plan: another digest", {"plan"}, plan(plan_digest=OTHER)
    yield "plan: another delta", {"plan"}, plan(delta=1e-3)
    yield "plan: another unit", {"plan"}, plan(unit="record")
    yield "plan: another target", {"plan"}, plan(target_epsilon=99.0)
    yield "plan: no privacy", {"plan"}, plan(private=False)
    yield "book: a site missing", {"count"}, _json("run/privacy.json", lambda told: told["sites"].pop("site-00"))
    yield (
        "a check of the gate failed",
        {"gate"},
        _json("run/gate.json", lambda told: told["findings"][0].update(passed=False)),
    )
    yield "other code listed", {"code"}, _json("run/code.json", lambda told: told["site"].pop())
    yield "signed by another key", {"signature"}, resigned
    yield "a site signed by another key than it is known by", {"identity"}, another_site
    for kind, (codes, change) in manifest.items():
        yield f"manifest: {kind}", codes, _json("manifest.json", change)


def _sha(forger: Any) -> str:
    import hashlib

    return hashlib.sha256(forger.files["run/config.toml"]).hexdigest()


def forged() -> Iterator[Plant]:
    for site in SITES:
        for kinds in (at_site, in_ledger, declared, at_coordinator, in_the_book):
            yield from kinds(site)
    yield from of_the_run()


PLANTS: list[Plant] = [*damage(), *forged()]
