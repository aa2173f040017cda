"""What a member must still know after a restart, on the site's disk before it answers.

::

    FOLDER/<run>.json           seeds, shares held, what was answered, of the last two or three rounds (0600)
    FOLDER/<run>-<round>.bin    the masked upload of a round
    FOLDER/lock                 held during every call

Every change replaces the file as a whole (``privacy/durable.py``); its first line is the SHA-256 of the rest. A file
system may keep old content in blocks that it has freed: forgetting is as good as the disk's.

A folder that is put back to an older copy would answer twice; so whatever must happen once only is also recorded by a
``Once``, which lies elsewhere: a line of the privacy ledger, or a :class:`OnceFile`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from llmchain_fl.core.foreign import attempt
from llmchain_fl.core.privacy.durable import append, content, locked, make_folder, remove, replace
from llmchain_fl.core.secure.checks import refuse
from llmchain_fl.core.secure.identity import canonical

LOCK = "lock"
Once = Callable[[str, str], None]
"""``once(name, digest)``: on the disk when it returns; raises where ``name`` has another digest. Free when repeated."""


@dataclass(frozen=True)
class Kept:
    """What a member knows of one round. Texts are hexadecimal digits but for names, ``context`` and ``bundle``."""

    seed: str
    directory: str = ""
    context: str = ""
    bundle: str = ""
    """The sealed shares that this member gives, as they leave."""
    sparse: bool = False
    members: int = 0
    holders: tuple[str, ...] = ()
    quorum: int = 0
    floor: int = 0
    """Before the upload this member's own; from then on the largest of all whose shares it holds."""
    shared: tuple[str, ...] = ()
    """Who gave shares; whom the upload is masked against."""
    held: dict[str, str] = field(default_factory=dict)
    """Owner -> its two shares."""
    upload: str = ""
    survivors: str = ""


class RunFile:
    """What a member knows of one run; changes count from :meth:`save` on."""

    def __init__(self, folder: Path, run: str) -> None:
        self._stem = folder / hashlib.sha256(canonical(run)).hexdigest()[:32]
        self.rounds: dict[int, Kept] = {}
        self.oldest = 0
        data = content(self._file)
        if data is not None:
            self._read(data)

    @property
    def _file(self) -> Path:
        return self._stem.with_name(self._stem.name + ".json")

    def save(self) -> None:
        """Write everything."""
        content = {"oldest": self.oldest, "rounds": {number: asdict(state) for number, state in self.rounds.items()}}
        data = canonical(content)
        replace(self._file, hashlib.sha256(data).hexdigest().encode() + b"\n" + data)

    def forget(self, before: int) -> None:
        """Drop the rounds below ``before``, for ever."""
        self.oldest = max(self.oldest, before)
        self.rounds = {number: state for number, state in self.rounds.items() if number >= self.oldest}
        self.save()
        live = {self._upload(number) for number in self.rounds}
        for file in self._stem.parent.glob(f"{self._stem.name}-*.bin"):
            if file not in live:
                remove(file)

    def write_upload(self, number: int, data: bytes) -> None:
        """Keep the bytes of an upload."""
        replace(self._upload(number), data)

    def read_upload(self, number: int) -> bytes:
        """The bytes of an upload; none where they are gone."""
        return content(self._upload(number)) or b""

    def _upload(self, number: int) -> Path:
        return self._stem.with_name(f"{self._stem.name}-{number}.bin")

    def _read(self, data: bytes) -> None:
        total, _, rest = data.partition(b"\n")
        content = attempt(lambda: json.loads(rest)) if hashlib.sha256(rest).hexdigest().encode() == total else None
        if not isinstance(content, dict):
            raise refuse("store", "the secrets of the secure sum are damaged")
        self.oldest = content["oldest"]
        for number, values in content["rounds"].items():
            lists = {name: tuple(values[name]) for name in ("holders", "shared")}
            self.rounds[int(number)] = Kept(**{**values, **lists})


class SecretStore:
    """The folder of one site; made when missing."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with disk_errors():
            if not (folder / LOCK).exists():  # made after the folder's name was flushed
                make_folder(folder)

    @contextmanager
    def opened(self, run: str) -> Iterator[RunFile]:
        """What is known of ``run``, under the lock.

        Raises:
            SecureSumError: store; damaged, or the disk fails.
        """
        with disk_errors(), locked(self._folder / LOCK):
            yield RunFile(self._folder, run)


class OnceFile:
    """A ``Once`` in a file of lines ``["name","digest"]``, for a site without a privacy ledger.

    ================================  =================================
    case                              result
    ================================  =================================
    the same name and digest again    nothing happens
    another digest for a name         refused: store
    a last line without its end       dropped: its call had not returned
    a line that is none               refused: store
    ================================  =================================

    Keep it away from the store's folder, so that no backup puts both back together.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self, name: str, digest: str) -> None:
        """See :data:`Once`."""
        with disk_errors():
            if not self._path.exists():  # written after the folder's name was flushed
                make_folder(self._path.parent)
            with locked(self._path.with_name(self._path.name + ".lock")):
                data = content(self._path) or b""
                whole = data[: data.rfind(b"\n") + 1]
                known = self._known(whole)
                if known.get(name, digest) != digest:
                    raise refuse("store", f"{name} was done before, and differently")
                if name not in known:
                    append(self._path, len(whole), canonical([name, digest]) + b"\n")

    def _known(self, data: bytes) -> dict[str, str]:
        known = attempt(lambda: {str(name): str(value) for name, value in map(json.loads, data.splitlines())})
        if known is None:
            raise refuse("store", f"{self._path} is damaged")
        return known


@contextmanager
def disk_errors() -> Iterator[None]:
    """Turn an ``OSError`` into a refusal that names no path."""
    try:
        yield
    except OSError as fault:
        raise refuse("store", f"it cannot be read or written (errno {fault.errno})") from fault
