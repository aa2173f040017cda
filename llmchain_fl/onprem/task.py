"""What an executor sees of Flower: where work comes from, and one piece of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from flwr.app import Context, Message


@dataclass(frozen=True)
class Access:
    """Where Flower's runtime API listens, the secret that lets an executor ask there, and who signs its certificate."""

    address: str
    secret: Path
    root_certificates: Path | None = None


@dataclass(frozen=True)
class Pulled:
    """A message, what Flower knows of its run, and the bytes of the bundle that the server sent."""

    message: Message
    context: Context
    bundle: bytes


class NotWanted(Exception):
    """Flower has dropped the reply while it was being pushed: the run was stopped."""


class Task(Protocol):
    """One message to be answered. ``push`` raises ``NotWanted``, ``OSError`` (not reached), or what is odd in it."""

    kind: str

    def pull(self) -> Pulled: ...
    def beat(self) -> bool: ...
    def push(self, reply: Message) -> None: ...
    def finish(self, done: bool) -> None: ...
    def close(self) -> None: ...


class Tasks(Protocol):
    """Where tasks come from."""

    def acquire(self) -> Task | None: ...
