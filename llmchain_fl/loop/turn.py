"""One turn: a private run, its adapter served, users and clerks, an edition a site, a private stage, the gate.

::

    OUT/run/                      the run: first its own stages, then the one that learns from corrections
    OUT/hub/, OUT/home/           published versions; the publisher's key
    OUT/line/                     what is served: pointer, signed verdicts, history
    OUT/desks/SITE/               serve file and store of each site (feedback.sqlite)
    OUT/records/SITE.jsonl        the frozen edition of each site
    OUT/loop.jsonl                every step, hash-chained
    OUT/outcome.json              what came of it
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmchain_fl.api.run import run as simulate
from llmchain_fl.atomic_file import write_json
from llmchain_fl.chained_file import ChainedFile
from llmchain_fl.cli.apps import simulator
from llmchain_fl.config.read import build, read_config
from llmchain_fl.data.stages import public_labels
from llmchain_fl.evaluation.margin import paired_change
from llmchain_fl.feedback.edition import freeze
from llmchain_fl.feedback.quarantine import Rules
from llmchain_fl.feedback.review import review
from llmchain_fl.feedback.store import Store
from llmchain_fl.hub.publish import Offer, publish
from llmchain_fl.hub.pull import Wanted, pull
from llmchain_fl.hub.signing import sha256
from llmchain_fl.hub.trust import own_identity, read_trust, trust_publisher
from llmchain_fl.loop.desk import Talk, User, bare_base, rounds_told, serving
from llmchain_fl.loop.people import answered, held_out_of, passages_of, threshold_of, users_of
from llmchain_fl.loop.settings import Loop
from llmchain_fl.progress import Progress, Silent
from llmchain_fl.promote.gate import Verdict
from llmchain_fl.promote.line import Line
from llmchain_fl.promote.run import promote
from llmchain_fl.report.wording import guarantee
from llmchain_fl.run_dir import RunDir

EDITION = "one"
Say = Callable[[str], None]


@dataclass(frozen=True)
class Outcome:
    """What a turn has come to.

    Attributes:
        before, after: share of the ``held_out`` messages that the adapter answers rightly; ``margin``: half-width of
            the 95 % interval of its rise.
        talk: of all sites.
        records: of all editions; ``persons``: whose.
        epsilon: spent at most by a site, in this run's book; ``terms``: what it means.
        verdict: of the gate; its checks that failed.
    """

    before: float
    after: float
    margin: float
    held_out: int
    talk: Talk
    records: int
    persons: int
    epsilon: float
    terms: str
    promoted: bool
    failed: tuple[str, ...]

    @property
    def gain(self) -> float:
        """In shares."""
        return self.after - self.before


@dataclass
class Turn:
    """A turn that is being played, in ``out``."""

    told: Loop
    out: Path
    say: Say
    progress: Progress = field(default_factory=Silent)

    def __post_init__(self) -> None:
        self.log = ChainedFile(self.out / "loop.jsonl", "put back the file, or play the loop into a new folder")
        self.line, self.home = Line(self.out / "line"), self.out / "home"
        self._load = bare_base()

    def play(self) -> Outcome:
        """All of it.

        Raises:
            LlmchainError: what is wrong and what to do; whatever was done until then stays.
        """
        loop = self.told.loop
        self.out.mkdir(parents=True, exist_ok=True)
        run = simulate(self.told.config, out=self.out / "run", callbacks=[rounds_told(self.say)]).run
        self._did("trained", stages=len(self.told.config.stage), config=sha256(run.config.read_bytes()))
        trust_publisher(self.home, "self", own_identity(self.home, make=True).public)
        label, verdict = self._promoted(run, 1)
        users, held_out = users_of(self.told, run), held_out_of(self.told)
        talk, before = self._served(run, label, users, held_out)
        rows, persons = self._editions(users)
        self._learned(run)
        label, verdict = self._promoted(run, 2)
        after = self._answered(label, held_out, next(iter(users))) if verdict.passed else answered(run, held_out)
        change = paired_change(_right(before, held_out), _right(after, held_out))
        outcome = Outcome(
            float(_right(before, held_out).mean()), float(_right(after, held_out).mean()), change.half_width,
            len(held_out), talk, rows, persons, _epsilon(run), _terms(run), verdict.passed,
            tuple(one.name for one in verdict.checks if not one.passed),
        )  # fmt: skip
        write_json(self.out / "outcome.json", {**asdict(outcome), "loop": loop.name})
        self._did("ended", promoted=verdict.passed, outcome=sha256((self.out / "outcome.json").read_bytes()))
        return outcome

    def _did(self, kind: str, **values: Any) -> None:
        self.log.enter(kind, **values)
        self.say(f"{kind}: {', '.join(f'{key} {value}' for key, value in values.items() if len(str(value)) < 40)}")

    def _promoted(self, run: RunDir, number: int) -> tuple[str, Verdict]:
        """Publish what the run has now, pull it as anybody would, and ask the gate."""
        name = self.told.loop.name
        manifest = publish(self.out / "hub", self.home, Offer(run, name, self.told.statement))
        folder = self.out / "pulled" / str(number)
        pull(str(self.out / "hub"), Wanted(name, number), folder, self.home, datetime.now(UTC))
        self._did("published", label=manifest.label, address=manifest.address)
        trust, identity = read_trust(self.home), own_identity(self.home)
        policy = self.told.policy
        verdict = promote(folder, self.line, policy, trust, identity, self.told.config.model.path)
        words = {check.name: check.passed for check in verdict.checks}
        self._did("promoted" if verdict.passed else "refused", label=manifest.label, checks=json.dumps(words))
        return manifest.label, verdict

    def _desk(self, label: str, site: str, threshold: float, passages: str = "") -> dict[str, Any]:
        """What the serve file of a site says."""
        model = self.told.config.model
        folder, base = self.line.place(self.line.current), Path(model.path)
        return {
            "adapter": str(folder.absolute()), "label": label, "threshold": threshold,
            "home": str(self.home.absolute()),
            "base": str(base.absolute()) if base.is_dir() else model.path, "threads": model.threads,
            "passages": passages, "store": "feedback.sqlite",
        }  # fmt: skip

    def _served(
        self, run: RunDir, label: str, users: Mapping[str, list[User]], held_out: Sequence[tuple[str, str]]
    ) -> tuple[Talk, list[str]]:
        """Every site's users ask and are corrected; what the held-out messages are answered with."""
        talk, before, threshold = Talk(), list[str](), 0.0
        if self.told.loop.accuracy:
            choice = threshold_of(self.told, run)
            threshold = choice.threshold
            self._did("calibrated", abstain_below=round(threshold, 4), coverage=round(choice.coverage, 4))
        passages, topics = passages_of(self.told.loop.passages, self.out / "passages.jsonl")
        for place, (site, own) in enumerate(users.items()):
            settings = self._desk(label, site, threshold, passages)
            with serving(self.out / "desks" / site, site, settings, self._load) as desk:
                for user in own:
                    desk.correct(user, talk, topics)
                if place == 0:
                    before = desk.ask([text for text, _ in held_out])
            self._did("served", site=site, label=label, users=len(own))
        return talk, before

    def _answered(self, label: str, held_out: Sequence[tuple[str, str]], site: str) -> list[str]:
        settings = {**self._desk(label, site, 0.0), "store": ""}
        with serving(self.out / "desks" / f"{site}-after", site, settings, self._load) as desk:
            return desk.ask([text for text, _ in held_out])

    def _editions(self, users: Mapping[str, list[User]]) -> tuple[int, int]:
        """Each site reviews what was told and freezes its edition."""
        loop, rows, persons = self.told.loop, 0, 0
        rules = Rules(most=loop.most, labels=frozenset(public_labels(self.told.config)))
        for site in users:
            store = Store(self.out / "desks" / site / "feedback.sqlite")
            try:
                counts = review(store, time.time(), lambda _: "a", lambda _: None)
                self._did("reviewed", site=site, **counts)
                file = self.out / "records" / f"{site}.jsonl"
                made = freeze(store, EDITION, file, "classification", loop.name, rules, time.time())
            finally:
                store.close()
            rows, persons = rows + made.rows, persons + made.persons
            self._did("frozen", site=site, edition=EDITION, records=made.rows, sha256=sha256(file.read_bytes()))
        return rows, persons

    def _learned(self, run: RunDir) -> None:
        """The run goes further by one private stage over the editions."""
        loop, tool = self.told.loop, simulator()
        tree = read_config(run.config).model_dump()
        stage = {"name": loop.stage, "rounds": loop.rounds, "train": str(self.out.absolute() / "records/{site}.jsonl")}
        stage |= {"test": loop.users}
        tree["stage"].append(stage)
        tree["train"]["lr"] = loop.lr
        config = tool.extend(build(tree), run)
        tool.simulate(config, run, self.progress)
        self._did("learned", stage=loop.stage, rounds=loop.rounds, config=sha256(run.config.read_bytes()))


def _epsilon(run: RunDir) -> float:
    """What a site has spent at most; infinite without privacy."""
    privacy = run.read_privacy()
    spent = [float(site["epsilon"]) for site in privacy.get("sites", {}).values()] if privacy.get("private") else []
    return max(spent, default=float("inf"))


def _terms(run: RunDir) -> str:
    """Delta, unit, accountant, and where the noise is; that there is none."""
    privacy = run.read_privacy()
    if not privacy.get("private"):
        return "no differential privacy"
    return guarantee(float(privacy["delta"]), str(privacy["unit"]), str(privacy["accountant"]), str(privacy["noise"]))


def _right(answers: Sequence[str], held_out: Sequence[tuple[str, str]]) -> NDArray[np.float64]:
    return np.array([one == label for one, (_, label) in zip(answers, held_out, strict=True)], dtype=np.float64)


def play(spec: Loop, out: Path, say: Say = lambda line: None) -> Outcome:
    """Play one turn in the folder ``out``; see :meth:`Turn.play`."""
    return Turn(spec, out, say).play()
