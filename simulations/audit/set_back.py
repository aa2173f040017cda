"""Is a ledger that was set back, copied, cut or edited found out before anything more is computed from records?

Each trick is done to the files of a whole site between two rounds. The site must then refuse as ``privacy``, whatever
the server sends; and its files are its owner's alone.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from llmchain_fl.core.codec_spec import CodecSpec
from llmchain_fl.privacy.audit.conformance import never
from llmchain_fl.privacy.audit.finding import Finding
from llmchain_fl.replies import Refusal, Update, read_reply
from simulations.audit.effort import Effort
from simulations.audit.own_run import Setting, small
from simulations.audit.own_site import OwnSite, made_up_rows
from simulations.audit.replies import Seen

STAGE = "first"
OPEN_TO_OTHERS = 0o077


class Played:
    """A site after two rounds, with copies of its files after the first, and the receipts it gave."""

    def __init__(self, folder: Path, seen: Seen, setting: Setting) -> None:
        self.site, self.setting, self.early = OwnSite(folder / "site", seen), setting, folder / "early"
        self.site.write(STAGE, made_up_rows(setting.work.task, ["ann", "bob"]))
        self.receipts = [self.ask(1)]
        self._copy(self.state, self.early / "state")
        self._copy(self.anchor, self.early / "anchor")
        self.receipts.append(self.ask(2, self.receipts[0]))

    @property
    def state(self) -> Path:
        """The state folder."""
        return Path(self.site.site.state)

    @property
    def log(self) -> Path:
        """The ledger's log."""
        return self.site.site.ledger_folder / "events.jsonl"

    @property
    def anchor(self) -> Path:
        """The anchor's file."""
        return self.site.site.anchor_file

    def ask(self, number: int, receipt: str = "") -> str:
        """The receipt of a round, or the code of a refusal."""
        answer = read_reply(self.site.train(self.setting.task(number, 1.0, stage=STAGE, receipt=receipt)))
        if isinstance(answer, Refusal):
            return answer.code
        return answer.receipt if isinstance(answer, Update) else ""

    def put_back(self, *, anchor: bool) -> None:
        """The state of after the first round; with the anchor of then, or with today's."""
        shutil.rmtree(self.state)
        self._copy(self.early / "state", self.state)
        if anchor:
            self._copy(self.early / "anchor", self.anchor)

    @staticmethod
    def _copy(source: Path, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            shutil.copy2(source, target)


def _older_state(played: Played) -> str:
    played.put_back(anchor=False)
    return played.ask(3)


def _older_state_and_anchor(played: Played) -> str:
    """Only the server's receipt can tell."""
    played.put_back(anchor=True)
    return played.ask(3, played.receipts[1])


def _forked(played: Played) -> str:
    """A copy went on elsewhere: it meets a receipt of the other one."""
    played.put_back(anchor=True)
    played.ask(7)
    return played.ask(3, played.receipts[1])


def _no_anchor(played: Played) -> str:
    played.anchor.unlink()
    return played.ask(3)


def _no_log(played: Played) -> str:
    played.log.unlink()
    return played.ask(3)


def _no_state(played: Played) -> str:
    """A fresh folder: the receipt was written under another key."""
    shutil.rmtree(played.state)
    played.anchor.unlink()
    return played.ask(3, played.receipts[1])


def _cut(played: Played) -> str:
    lines = played.log.read_bytes().splitlines(keepends=True)
    played.log.write_bytes(b"".join(lines[:-1]))
    return played.ask(3)


def _edited(played: Played) -> str:
    original = played.log.read_bytes()
    edited = re.sub(rb'("noise_multiplier": ?)2\.0', rb"\g<1>9.0", original)
    played.log.write_bytes(edited)
    return played.ask(3) if edited != original else ""


def _no_register(played: Played) -> str:
    shutil.rmtree(played.site.site.ledger_folder / "members")
    return played.ask(3)


def _sealed_bytes_gone(played: Played) -> str:
    """What was sealed must not be trained a second time."""
    for file in (played.site.site.ledger_folder / "sealed").glob("*.bin"):
        file.unlink()
    return played.ask(2)


def _sealed_bytes_changed(played: Played) -> str:
    for file in (played.site.site.ledger_folder / "sealed").glob("*.bin"):
        file.write_bytes(file.read_bytes()[:-4] + b"\x00\x00\x80\x3f")
    return played.ask(2)


def _another_unit(played: Played) -> str:
    """The same ledger, counted by another unit."""
    played.setting = Setting(small(unit="record", records_per_unit=1))
    return played.ask(3)


TRICKS: Mapping[str, Callable[[Played], str]] = MappingProxyType(
    {
        "an older state": _older_state,
        "an older state and anchor": _older_state_and_anchor,
        "a copy that went on": _forked,
        "no anchor": _no_anchor,
        "no log": _no_log,
        "a fresh state": _no_state,
        "a cut log": _cut,
        "an edited log": _edited,
        "no register": _no_register,
        "sealed bytes gone": _sealed_bytes_gone,
        "sealed bytes changed": _sealed_bytes_changed,
        "another unit": _another_unit,
    }
)
"""what is done -> the answer to the next task."""


def set_back(folder: Path, effort: Effort) -> list[Finding]:
    """Every trick, on a site of its own; then an untouched site that must go on."""
    seen, answers = Seen(), {}
    setting = Setting(small(codec=CodecSpec("top-k", feedback=True)))
    for number, (name, trick) in enumerate(TRICKS.items()):
        answers[name] = trick(Played(folder / str(number), seen, setting))
    through = [name for name, answer in answers.items() if answer != "privacy"]
    honest = Played(folder / "honest", seen, setting)
    refused = sum(len(receipt) < 20 for receipt in (*honest.receipts, honest.ask(3, honest.receipts[1])))
    words = f"Of {len(TRICKS)} ways to set back, copy, cut or edit a ledger: {', '.join(through) or 'none'}."
    return [
        never("a ledger set back goes on", len(through), words),
        never("an honest ledger is refused", refused, "Rounds of an untouched site."),
        never(
            "registers alike", _alike(honest, Played(folder / "other", seen, setting)), "Files of two sites' registers."
        ),
        never("files open to others", _open_files(honest.state), "Files and folders of a site's state."),
        seen.finding("set back"),
    ]


def _alike(*sites: Played) -> int:
    """Files of the register that two sites with the same people have in common."""
    files = [{file.name for file in (one.site.site.ledger_folder / "members").iterdir()} for one in sites]
    return len(set.intersection(*files)) + sum(not names for names in files)


def _open_files(folder: Path) -> int:
    return sum(bool(os.stat(path).st_mode & OPEN_TO_OTHERS) for path in (folder, *folder.rglob("*")))
