"""Check a file that ``llmchain-fl evidence`` wrote, by this one file: nothing of llmchain_fl, no torch.

    python verify.py FILE.zip --key ed25519:... [--site NAME=ed25519:...]

Needs Python 3.11, numpy and cryptography. Signatures, chains of lines, digests and what one log says of another are
checked, and every epsilon is computed anew from the lines of the ledgers: not by the library that the sites use, but by
sums over privacy losses that stand here. Ends with 1 where something is wrong (docs/audit.md says what can be), else 0.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import sys
import tomllib
import zipfile
from collections import Counter
from functools import lru_cache
from typing import Any

import numpy as np
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

LINES = """open format side name; started by version; stopped by why; approved by what sha256; changed by was;
answered kind run round task task_bytes work decision reply reply_bytes before; lost site node kind run round task;
asked site node kind run round task task_bytes work; received site node kind run round task decision reply
reply_bytes; declined kind run round task decision bundle"""
COMMON = {"seq", "time", "type", "prev", "hash", "policy", "ledger"}
AUDIT = {kind: COMMON | {*fields} for kind, *fields in (line.split() for line in LINES.split(";"))}
STATEMENT = {"format", "site", "version", "identity", "files", "audit", "ledger", "limits", "secure", "policy", "code"}
MANIFEST = {"format", "run", "version", "identity", "files", "sites", "audit", "code", "model"}
PLAN = """sampling_rate noise_multiplier clip_norm steps_per_round divisor delta unit adjacency records_per_unit stages
score_noise rehearsal shares members grid"""
FREE = {"budget", "privacy", "data", "config", "model", "run", "wire", "admission", "secure"}  # declined, at no cost
TRAIN, SCORE = "train", "evaluate"
CELLS = 2**16
NEAR = 0.003, 0.002  # how far an epsilon may be off: relative, and absolute
ORDERS = np.array([*(1 + n / 10 for n in range(1, 100)), *range(11, 64), 128, 256, 512, 1024])
_erfc = np.vectorize(math.erfc, otypes=[float])
Entry = dict[str, Any]
Event = tuple[float, float, int]  # sampling rate, noise multiplier of continuous noise, steps
Check = tuple[object, str, str]  # what must hold, a code, words
Ended = tuple[Entry, Entry | None]  # a task, and its end; None where the server died or was stopped


class Report:
    """What was found: (code, place, words), and what could not be checked."""

    def __init__(self) -> None:
        self.faults, self.notes, self.checks = list[tuple[str, str, str]](), list[tuple[str, str, str]](), 0

    def need(self, place: str, *checks: Check) -> bool:
        """Keep those of ``checks`` that do not hold; whether all of them do."""
        self.checks += len(checks)
        self.faults += [(code, place, words) for holds, code, words in checks if not holds]
        return all(holds for holds, _, _ in checks)


def canonical(value: object) -> bytes:
    """The one way to write ``value`` as JSON."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def sha256(data: bytes) -> str:
    """Hex digits."""
    return hashlib.sha256(data).hexdigest()


def as_event(kind: str, sampling_rate: float, noise_multiplier: float, steps: int) -> Event:
    """Integer noise counts as continuous noise of a little less (factor 1 - 2^-13)."""
    return float(sampling_rate), float(noise_multiplier) * (1 - 2.0**-13 if "discrete" in kind else 1.0), steps


def merged(events: list[Event]) -> tuple[Event, ...]:
    """Equal events as one; those in which everybody takes part as one Gaussian release."""
    steps: Counter[tuple[float, float]] = Counter()
    for q, z, count in events:
        steps[q, z] += count
    precision = sum(count / z**2 for (q, z), count in steps.items() if q == 1 and z)
    rest = [(q, z, count) for (q, z), count in sorted(steps.items()) if q < 1 or not z]
    return (*rest, (1.0, precision**-0.5, 1)) if precision else tuple(rest)


@lru_cache(maxsize=4096)
def epsilon(events: tuple[Event, ...], delta: float) -> float:
    """Of adding or removing one unit: the larger of both directions."""
    hopeless = any(z < 0.01 for _, z, _ in events)
    return math.inf if hopeless else max(_composed(events, delta, one) for one in (True, False)) if events else 0.0


def _phi(x: np.ndarray) -> np.ndarray:
    """Normal distribution; beyond 9 standard deviations 0 or 1."""
    values, near = (x > 0).astype(float), np.abs(x) < 9
    values[near] = _erfc(-x[near] / math.sqrt(2)) / 2
    return values


def _loss_cdf(t: np.ndarray, q: float, z: float, remove: bool) -> np.ndarray:
    """P[loss of one step <= t]; the loss is monotone in the output x, so this is a normal distribution at x(t)."""
    s = t if remove else -t
    with np.errstate(all="ignore"):
        inner = (np.exp(s) - (1 - q)) / q
        x = np.where(inner > 0, z**2 * np.log(np.where(inner > 0, inner, 1)) + 0.5, -np.inf)
        x = np.where(s > 600, z**2 * (s - math.log(q)) + 0.5, x)
    return (1 - q) * _phi(x / z) + q * _phi((x - 1) / z) if remove else 1 - _phi(x / z)


def _losses(q: float, z: float, upto: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Outputs of a step, without the unit: (log of how much likelier they are with it; log of their chances)."""
    x = np.arange(-10 * z, upto + 10 * z, z / 1000 if upto == 1.0 else z / 20)
    loss = np.logaddexp(math.log1p(-q), math.log(q) + (2 * x - 1) / (2 * z**2))
    return loss, -((x / z) ** 2) / 2 - np.logaddexp.reduce(-((x / z) ** 2) / 2)


def _composed(events: tuple[Event, ...], delta: float, remove: bool) -> float:
    """Losses rounded to a grid and convolved, the mean put right (Gopi, Lee & Wutschitz 2021, arXiv 2106.02848)."""
    one = [(min(q, 1 - 2.0**-53), z, steps) for q, z, steps in events]
    means, span = list[float](), 0.0
    for q, z, steps in one:
        loss, logs = _losses(q, z)
        loss, chance = (loss, np.exp(logs + loss)) if remove else (-loss, np.exp(logs))
        means.append(float((chance * loss).sum()))
        spread = math.sqrt(float((chance * (loss - means[-1]) ** 2).sum()))
        span += float(np.abs(loss).max()) + steps * abs(means[-1]) + 10 * math.sqrt(steps) * spread
    width, half = 2 * span / CELLS, CELLS // 2
    losses = (np.arange(CELLS) - half) * width
    edges = np.append(losses - width / 2, losses[-1] + width / 2)
    total, shift = np.ones(half + 1, dtype=complex), 0.0
    for (q, z, steps), mean in zip(one, means, strict=True):
        mass = np.diff(_loss_cdf(edges, q, z, remove))
        shift += steps * (mean - float((mass * losses).sum()))
        total *= np.fft.rfft(np.roll(mass, -half)) ** steps
    mass, losses = np.clip(np.roll(np.fft.irfft(total), half), 0.0, None), losses + shift
    low, high = 0.0, span
    for _ in range(50):
        eps = (low + high) / 2
        much = float(-(mass * np.expm1(np.minimum(eps - losses, 0.0))).sum()) > delta
        low, high = (eps, high) if much else (low, eps)
    return high if high > span * 1e-12 else 0.0


@lru_cache(maxsize=4096)
def renyi(events: tuple[Event, ...], delta: float) -> float:
    """Epsilon by Renyi divergences: the second, looser figure of privacy.json."""
    if not events or any(z < 0.01 for _, z, _ in events):
        return math.inf if events else 0.0
    total = np.log1p(-1 / ORDERS) - np.log(delta * ORDERS) / (ORDERS - 1)
    for q, z, steps in events:
        loss, logs = _losses(min(q, 1 - 2.0**-53), z, float(max(ORDERS)))
        total += steps * np.array([np.logaddexp.reduce(logs + order * loss) / (order - 1) for order in ORDERS])
    return max(0.0, float(total.min()))


def judged(stated: float | None, groups: list[tuple[Event, ...]], delta: float, by: Any = epsilon) -> Check:
    """Whether a stated epsilon (None: infinite) is that of the group that spent most."""
    true, worst = max((by(events, delta), events) for events in [(), *groups])
    many = len(worst) > 100 or sum(n for q, _, n in worst if q < 1) > 10**6
    above = math.inf if many else 0.02 if by is renyi else NEAR[0]  # the library leaves some Renyi orders out
    good = (stated is None) == math.isinf(true)
    good = good and (stated is None or true * (1 - NEAR[0]) - NEAR[1] <= stated <= true * (1 + above) + NEAR[1])
    return good, "epsilon", f"{by.__name__} is {stated}, what was released comes to {true:.5g}"


def signed_by(message: bytes, kind: str, content: bytes, key: str) -> bool:
    """Whether ``message`` is a signature of ``key`` on the SHA-256 of ``content``."""
    body = {"sha256": sha256(content)}
    try:
        fields = json.loads(message)
        public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(key.removeprefix("ed25519:")))
        text = b"llmchain_fl secure sum 1\n%b\n%b" % (kind.encode(), canonical(body))
        public.verify(bytes.fromhex(fields["signature"]), text)
        return canonical({"kind": kind, "body": body, "signature": fields["signature"]}) == message
    except (ValueError, KeyError, TypeError, InvalidSignature):
        return False


def statement(data: bytes, fields: set[str], place: str, report: Report) -> Entry:
    """A JSON object with these fields, as it was written; {} where it is none."""
    tree = json.loads(data or b"{}")
    good = isinstance(tree, dict) and set(tree) == fields and canonical(tree) == data
    return tree if report.need(place, (good, "form", "is not what evidence writes")) else {}


def log_of(data: bytes, end: Entry | None, place: str, report: Report, last: str | None = None) -> list[Entry]:
    """The entries of a chain, against what was signed of it: its end, and ``last``, an audit log's last settings."""
    entries: list[Entry] = []
    stood = {"hash": "0" * 64, "policy": ""}
    for number, line in enumerate(data.split(b"\n")[:-1], 1):
        try:
            entry = json.loads(line)
            content = {name: value for name, value in entry.items() if name not in ("prev", "hash")}
            own = sha256(stood["hash"].encode() + b"\n" + canonical(content))
            good = canonical(entry) == line and (entry["prev"], entry["hash"]) == (stood["hash"], own)
            good = good and entry["seq"] == number and (entry["type"] == "open") == (number == 1)
            good = good and (last is None or set(entry) == AUDIT[entry["type"]])
        except (ValueError, KeyError, TypeError, AttributeError):
            good = False
        if not report.need(f"{place}:{number}", (good, "chain", "the line does not follow from those before it")):
            break
        if last is not None and number > 1:
            stays = entry["was" if entry["type"] == "changed" else "policy"] == stood["policy"]
            report.need(f"{place}:{number}", (stays, "policy", "the settings are not those of the line before"))
        entries.append(entry)
        stood = entry
    now = {"seq": len(entries), "head": stood["hash"]} if entries else None
    report.need(place, (now == end, "head", "its end is not the one that was signed"))
    report.need(place, (last is None or stood["policy"] == last, "policy", "the last settings are not those declared"))
    return entries


def key_of(entry: Entry) -> str:
    """How a ledger names the release that a line of an audit log tells of."""
    return f"{entry['run']}/{entry['round']}{'/scores' if entry['kind'] == SCORE else ''}"


class Site:
    """What a site's part of the evidence says; checked by itself where it is read."""

    def __init__(self, name: str, data: dict[str, bytes], fields: Entry, report: Report) -> None:
        self.name, self.told, self.report, self.place = name, fields, report, f"sites/{name}"
        audit, ledger = f"{self.place}/audit.jsonl", f"{self.place}/ledger.jsonl"
        self.audit = log_of(data[audit], fields["audit"], audit, report, fields["policy"])
        self.ledger = log_of(data[ledger], fields["ledger"], ledger, report)
        owner = {entry.get("name", entry.get("site")) for entry in (*self.audit[:1], *self.ledger[:1])}
        foreign = {entry["type"] for entry in self.audit} & {"asked", "received", "lost"}
        report.need(self.place, (owner <= {name} and not foreign, "form", "a log that is not this site's"))
        self.lines: dict[str, dict[str, Entry]] = {"reserve": {}, "seal": {}, "ack": {}}
        self.reserved, self.sealed, self.acked = self.lines.values()
        self._replay()
        self._follow()

    def _replay(self) -> None:
        """What the ledger says was paid, sealed and acknowledged."""
        after = {"reserve": None, "seal": self.reserved, "ack": self.sealed}
        for line in self.ledger:
            key, kind, place = line.get("key", ""), line["type"], f"{self.place}/ledger.jsonl:{line['seq']}"
            for before, into in [(after[kind], self.lines[kind])] if kind in after else []:
                good = key not in into and (before is None or key in before)
                self.report.need(place, (good, "ledger", f"no {kind} can come here"))
                into.setdefault(key, line)

    def _follow(self) -> None:
        """Each line against the one before, the ledger, and what the site has declared."""
        before: Entry | None = None
        for entry in self.audit:
            place, state = f"{self.place}/audit.jsonl:{entry['seq']}", entry["ledger"]
            if entry["type"] == "answered":
                same = state is None or (before["delta"] == state["delta"] if before else entry["seq"] > 2)
                stood = None if not same else before["epsilon"] if before else 0.0
                self.report.need(place, (entry["before"] == stood, "epsilon", f"before it epsilon was {stood}"))
                self._release(entry, before, place)
            if state != before:
                self._state(entry, state or {}, before or {"seq": 0}, place)
            before = state

    def _state(self, entry: Entry, state: Entry, before: Entry, place: str) -> None:
        """How the ledger stood by a line, where it stood otherwise before."""
        limits, secure, need = self.told["limits"], self.told["secure"], self.report.need
        seq, silent = state.get("seq", 0), entry["type"] in ("open", "changed")
        head = self.ledger[seq - 1]["hash"] if 0 < seq <= len(self.ledger) else None
        good = head and head == state["head"] and seq >= before["seq"] and not silent
        need(place, (good, "ledger", "the ledger has no such line, or went back, or changed without work"))
        if not state:
            return
        if entry["policy"] == self.told["policy"]:
            trust = secure["counted_peers"] if secure["peers"] else 0, len({*secure["peers"], self.name})
            terms = (limits["delta"], self.ledger[0]["unit"] if self.ledger else "", "pld", *trust)
            seen = tuple(state[name] for name in ("delta", "unit", "accountant", "counted_peers", "listed"))
            much = state["epsilon"] is None or state["epsilon"] > limits["epsilon"] * (1 + 1e-9)
            need(place, (seen == terms and not much, "limit", "other terms than declared, or epsilon above the limit"))
        lines, profiles, spent = [*self.reserved.values()], list[str](), list[tuple[Event, ...]]()
        charges = [(line["seq"], one["group"], one["event"]) for line in lines for one in line["charges"]]
        paid = [(n, group, as_event(**event)) for n, group, event in charges if n <= seq]
        for profile in state["profiles"]:
            until = {"*": math.inf}
            for group in profile.split(" + ") if profile != "everybody" else ():
                name, _, line = group.removesuffix(")").partition(" (left at line ")
                until[name] = int(line) if line else math.inf
            profiles += until
            spent.append(merged([event for n, group, event in paid if n < until.get(group, -1)]))
        missing = {group for _, group, _ in paid} - {*profiles, "*"}
        need(place, (not missing, "epsilon", f"nobody is counted in {', '.join(sorted(missing))}"))
        need(place, judged(state["epsilon"], spent, state["delta"]))

    def _release(self, entry: Entry, before: Entry | None, place: str) -> None:
        """Whether what left had been paid and sealed, and what was declined had cost nothing."""
        key, kind, limits = key_of(entry), entry["kind"], self.told["limits"]
        now, then = (one["seq"] if one else 0 for one in (entry["ledger"], before))
        private = kind == TRAIN or (kind == SCORE and limits["scores"] == "noised")
        private = private and limits["require_privacy"] and entry["policy"] == self.told["policy"]
        left = entry["decision"] == "answered" and kind in (TRAIN, SCORE) and (private or key in self.reserved)
        sealed = key in self.sealed and self.sealed[key]["seq"] <= now
        free = entry["decision"] in FREE and kind in (TRAIN, SCORE)
        good = (sealed or not left) and not (free and then < self.reserved.get(key, {"seq": 0})["seq"] <= now)
        self.report.need(place, (good, "unpaid", f"{key} left and is not sealed, or was declined and paid for"))


def follow_tasks(log: list[Entry], run: str, report: Report) -> list[Ended]:
    """The tasks of the coordinator's log, each with its end."""
    ended, waiting = list[Ended](), dict[int, Entry]()
    for entry in log:
        kind, good = entry["type"], entry["type"] != "answered"
        if kind == "asked":
            good = entry["run"].partition("/")[0] in ("", run) and entry["node"] not in waiting
            waiting[entry["node"]] = entry
        elif kind in ("received", "lost"):
            task = waiting.pop(entry["node"], {})
            good = task.get("site", "?") in ("", entry["site"])
            good = good and all(task[name] == entry[name] for name in ("kind", "run", "round", "task"))
            ended += [(task, entry)] if good else []
        elif kind in ("started", "stopped"):
            good = not waiting or entry.get("why") != "done"
            ended, waiting = [*ended, *((task, None) for task in waiting.values())], {}
        report.need(f"run/audit.jsonl:{entry['seq']}", (good, "pairing", "tasks and their ends do not fit together"))
    return ended


def compare(tasks: list[Ended], sites: dict[str, Site], run: str, report: Report) -> None:
    """Every reply that was received left its site, and every one that left is in the coordinator's log."""
    left = {name: [entry for entry in site.audit if entry["type"] == "answered"] for name, site in sites.items()}
    lost = Counter[tuple[str, str]]()
    for task, end in tasks:
        if end is None or end["type"] == "lost" or end["decision"] == "failed":
            lost[task["site"], task["task"]] += 1
        elif end["site"] in sites:
            reply, here = {**task, **end}, left[end["site"]]
            near = [one for one in here if all(one[name] == reply[name] for name in ("kind", "run", "round"))]
            got = [one for one in near if all(one[name] == reply[name] for name in ("task", "task_bytes", "work"))]
            sent = [one for one in got if all(one[f] == reply[f] for f in ("decision", "reply", "reply_bytes"))]
            code = "task" if near and not got else "reply"
            report.need(f"run/audit.jsonl:{end['seq']}", (sent, code, f"{end['site']} tells of no such {code}"))
            if sent:
                here.remove(sent[0])
    for name, entries in left.items():
        for one in (entry for entry in entries if entry["run"].partition("/")[0] == run):
            lost[name, one["task"]] -= 1
            good = lost[name, one["task"]] >= 0 and key_of(one) not in sites[name].acked
            place = f"sites/{name}/audit.jsonl:{one['seq']}"
            report.need(place, (good, "reply", f"the reply to {one['kind']} {key_of(one)} was not received"))
        known = {key_of(entry) for entry in sites[name].audit if entry["type"] == "answered"}
        gone = sorted(key for key in sites[name].acked if key.split("/")[0] == run and key not in known)
        report.need(f"sites/{name}", (not gone, "reply", f"in no line, and acknowledged: {', '.join(gone)}"))


def trained(plan: Entry, rounds: int, trusted: int | None = None, listed: int = 0) -> Event:
    """``rounds`` rounds of a plan: against the server alone, or with all but ``trusted`` of the ``listed`` sites."""
    counted = max(0, min(trusted, listed - 1) - (listed - plan["shares"])) if trusted is not None else plan["shares"]
    noise = plan["noise_multiplier"] * (min(1 + counted, plan["shares"]) / plan["shares"]) ** 0.5
    q, steps = (1, 1) if plan["unit"] == "site" else (plan["sampling_rate"], plan["steps_per_round"])
    return as_event("discrete" * (plan["shares"] > 1), q, noise, steps * rounds)


def book_events(plans: list[Entry], counts: Entry, trusted: int | None = None) -> list[tuple[Event, ...]]:
    """What each group of a site has spent by the server's book: group -> a number for each plan."""
    plans_of = {group: [(plan, n) for plan, n in zip(plans, each, strict=False) if n] for group, each in counts.items()}
    scores = [(1.0, plan["score_noise"], n) for plan, n in plans_of.pop("held-out", [])]
    rounds = [[trained(plan, n, trusted, plan["members"]) for plan, n in each] for each in plans_of.values()]
    return [merged(each) for each in [*rounds, scores]]


def check_settings(data: dict[str, bytes], log: list[Entry], report: Report) -> None:
    """Settings of now and earlier ones are there, and no task goes beyond the rounds that were planned by then."""
    texts = [text for name, text in data.items() if name.startswith(("run/config.toml", "run/settings/"))]
    held = {sha256(text): tomllib.loads(text.decode()) for text in texts}
    for entry in log:
        settings, place = held.get(entry["policy"], {}), f"run/audit.jsonl:{entry['seq']}"
        if report.need(place, (settings, "policy", "settings that are not there")) and entry["type"] == "asked":
            good = entry["round"] <= sum(stage["rounds"] for stage in settings["stage"])
            report.need(place, (good, "plan", "a round that was not planned by then"))
            entry["noise"] = settings["privacy"]["noise_multiplier"]


def check_book(data: dict[str, bytes], run: str, tasks: list[Ended], sites: dict[str, Site], report: Report) -> None:
    """privacy.json against itself, the settings, the tasks, and the ledgers."""
    tree, place, need = json.loads(data["run/privacy.json"]), "run/privacy.json", report.need
    config = tomllib.loads(data["run/config.toml"].decode())["privacy"]
    if not need(place, (bool(tree.get("private")) == config["enabled"], "plan", "not as set")) or not tree["private"]:
        return
    plan = {name: tree[name] for name in PLAN.split()}
    plans = [{**plan, **earlier} for earlier in tree.get("earlier_plans", [])] + [plan]
    terms = plan["delta"], plan["unit"], tree["target_epsilon"]
    need(
        place,
        (sha256(canonical(plan)) == tree["plan_digest"], "plan", "the plan is not the one of its digest"),
        (terms == (config["delta"], config["unit"], config["epsilon"] or None), "plan", "terms are not as set"),
        (set(sites) <= set(tree["sites"]), "count", "a site of the evidence is missing"),
    )
    spent, noise = {}, {str(task["round"]): task.get("noise") for task, _ in tasks}
    for name, book in tree["sites"].items():
        counts = book.get("groups_by_plan") or {group: [count] for group, count in book["groups"].items()}
        spent[name], events = counts, book_events(plans, counts)
        rounds = sum(count for group, count in book["groups"].items() if group != "held-out")
        of = [(a["kind"], a["round"], (e or {}).get("decision", "lost")) for a, e in tasks if a["site"] == name]
        gave = {number for kind, number, how in of if kind == TRAIN and how == "answered"}
        most = {n for kind, n, how in of if how not in FREE and (kind == TRAIN or how != "answered") and kind != SCORE}
        fits = len(gave) <= rounds and (rounds <= len(most) or plan["rehearsal"] != "none")
        sums = {group: sum(each) for group, each in counts.items()}, rounds, rounds * plan["steps_per_round"]
        need(
            f"{place}: {name}",
            judged(book["epsilon"], events, plan["delta"]),
            judged(book["epsilon_rdp"], events, plan["delta"], renyi),
            ((book["epsilon"] or 0) <= (tree["target_epsilon"] or math.inf) * (1 + 1e-6), "limit", "above the target"),
            (sums == (book["groups"], book["rounds"], book["steps"]), "count", "numbers do not add up"),
            (fits, "count", f"{rounds} rounds, {len(gave)} answered, {len(most)} that may have been paid for"),
        )
        if name in sites:
            check_charges(sites[name], run, plans, noise, counts, report)
    for trusted, value in tree.get("epsilon_by_trusted_peers", {}).items():
        worst = max(spent, key=lambda name: tree["sites"][name]["epsilon"] or math.inf)
        need(place, judged(value, book_events(plans, spent[worst], int(trusted)), plan["delta"]))


def check_charges(site: Site, run: str, plans: list[Entry], noise: Entry, counts: Entry, report: Report) -> None:
    """What a site's ledger was charged with in this run, against the plan, the noise set by then, and the tasks."""
    listed, trust = len({*site.told["secure"]["peers"], site.name}), site.told["secure"]["counted_peers"]
    known, left = {sha256(canonical(plan)): plan for plan in plans}, Counter[tuple[str, bool]]()
    for group, digest, count in ((g, d, n) for g, each in counts.items() for d, n in zip(known, each, strict=False)):
        left[digest, group == "held-out"] += count
    for key, line in site.reserved.items():
        place = f"{site.place}/ledger.jsonl:{line['seq']}"
        if key.split("/")[0] != run or not report.need(place, (line["plan"] in known, "plan", "another plan")):
            continue
        plan, score = dict(known[line["plan"]]), line["purpose"] == "scores"
        plan["noise_multiplier"] = noise.get(key.split("/")[1]) or plan["noise_multiplier"]  # 0: by the epsilon set
        for one in (as_event(**charge["event"]) for charge in line["charges"]):
            true = (1.0, plan["score_noise"], one[2]) if score else trained(plan, 1, trust, listed)
            report.need(place, (np.allclose(one, true, 1e-9, 0), "charge", f"{key} costs {one}, by the plan {true}"))
        left[line["plan"], score] -= line["charges"][0]["event"]["steps"] if score else 1
    report.need(site.place, (min(left.values(), default=0) >= 0, "count", "more paid for by a plan than is counted"))


def check_site(name: str, data: dict[str, bytes], manifest: Entry, pinned: dict[str, str], report: Report) -> Site:
    """One site's part: who signed it, and what it says."""
    place, identity = f"sites/{name}", manifest["sites"][name]
    content = data[f"{place}/statement.json"]
    stated = statement(content, STATEMENT, f"{place}/statement.json", report)
    signed = signed_by(data[f"{place}/statement.sig"], "evidence site", content, identity)
    free = {one[:7] for one in stated["limits"]["base_models"]} != {"sha256:"}  # none listed, or some by name
    files = {file: sha256(data[f"{place}/{file}"]) for file in stated["files"]}
    report.need(
        place,
        (signed, "signature", f"not signed by {identity}"),
        (identity == stated["identity"] == pinned.get(name, identity), "identity", "another key than expected"),
        (stated["site"] == name, "form", "the part of another site"),
        (files == stated["files"], "digest", "a log is not the one that the site signed"),
        (stated["code"] == manifest["code"]["site"], "code", "other code than the coordinator's"),
        (free or manifest["model"]["base"] in stated["limits"]["base_models"], "model", "a base it does not allow"),
    )
    return Site(name, data, stated, report)


def check(data: dict[str, bytes], key: str, pinned: dict[str, str], report: Report) -> None:
    """The whole archive; ``pinned``: keys of sites."""
    manifest, need = statement(data["manifest.json"], MANIFEST, "manifest.json", report), report.need
    signed = signed_by(data["manifest.sig"], "evidence", data["manifest.json"], key)
    need("manifest.json", (signed, "signature", f"not of {key}"), (manifest["identity"] == key, "identity", "not it"))
    for name in sorted({*data, *manifest["files"]} - {"manifest.json", "manifest.sig"}):
        need(name, (sha256(data.get(name, b"")) == manifest["files"].get(name), "digest", "is not what was signed"))
    sites = {name: check_site(name, data, manifest, pinned, report) for name in manifest["sites"]}
    policy = sha256(data["run/config.toml"])
    log = log_of(data["run/audit.jsonl"], manifest["audit"], "run/audit.jsonl", report, policy)
    check_settings(data, log, report)
    code = {side: sha256(canonical(files)) for side, files in json.loads(data["run/code.json"]).items()}
    need("run/code.json", (code == manifest["code"], "code", "not the files that were declared"))
    for one in json.loads(data.get("run/gate.json", b"{}")).get("findings", []):
        need("run/gate.json", (one["passed"], "gate", one["name"]))
    tasks = follow_tasks(log, manifest["run"], report)
    compare(tasks, sites, manifest["run"], report)
    check_book(data, manifest["run"], tasks, sites, report)
    gave = {end["site"] for _, end in tasks if end and end["type"] == "received"} - set(sites)
    report.notes += [("note", name, "no evidence: what it sent cannot be compared") for name in sorted(gave)]


def main(words: list[str] | None = None) -> int:
    """Read the command line, check, and say what was found."""
    parser = argparse.ArgumentParser(description="Check the evidence of a run of llmchain_fl.")
    parser.add_argument("file")
    parser.add_argument("--key", required=True, help="ed25519:... of the coordinator, given hand to hand")
    parser.add_argument("--site", action="append", default=[], metavar="NAME=KEY", help="the key of a site, likewise")
    options, report = parser.parse_args(words), Report()
    try:
        with zipfile.ZipFile(options.file) as archive:
            names = archive.namelist()
            report.need(options.file, (len(names) == len(set(names)), "archive", "has a name twice"))
            data = {name: archive.read(name) for name in names}
        check(data, options.key, dict(one.split("=", 1) for one in options.site), report)
    except (OSError, zipfile.BadZipFile, LookupError, ValueError, TypeError, AttributeError) as fault:
        report.need(options.file, (False, "archive", f"cannot be read to its end ({type(fault).__name__}: {fault})"))
    for line in (*report.faults, *report.notes):
        print("{:9}  {}: {}".format(*line))  # noqa: T201
    print(f"{report.checks} checks, {len(report.faults)} inconsistencies")  # noqa: T201
    return 1 if report.faults else 0


if __name__ == "__main__":
    sys.exit(main())
