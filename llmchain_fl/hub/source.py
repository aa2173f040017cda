"""Where a hub is read from: a folder of this machine, or any static HTTP server. Neither is believed in anything."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Callable
from email.message import Message
from pathlib import Path
from typing import IO, Any

from llmchain_fl.core.errors import ConfigError
from llmchain_fl.hub.layout import read_inside
from llmchain_fl.hub.refused import refuse

Read = Callable[[str, int], bytes]
"""(name, most bytes) -> the bytes of a file of the hub."""
WAIT_SECONDS, LONGEST_SECONDS = 30.0, 900.0
BLOCK = 2**20


def source(place: str) -> Read:
    """A reader of the hub at ``place``: a folder, or ``http://`` or ``https://``.

    ===========================================================  ============
    answer                                                       refused
    ===========================================================  ============
    another scheme, such as ``file:`` or ``ftp:``                ConfigError
    nothing there                                                missing
    a redirection, an error, no answer for ``WAIT_SECONDS``      transport
    a file that takes longer than ``LONGEST_SECONDS``            transport
    more bytes than asked for                                    size
    ===========================================================  ============

    Raises:
        ConfigError: it is neither.
    """
    if is_address(place):
        return lambda name, most: _fetch(f"{place.rstrip('/')}/{name}", name, most)
    if not place or "://" in place or not Path(place).is_dir():
        raise ConfigError([f"{place!r} is no hub"], remedy="give a folder, or an address of http:// or https://")
    return lambda name, most: read_inside(Path(place), name, most)


def is_address(place: str) -> bool:
    """Whether a hub is read over the network."""
    return place.startswith(("http://", "https://"))


class _Stay(urllib.request.HTTPRedirectHandler):
    """No redirection: a hub names no other machine."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> None:
        """Refuse it."""


def _fetch(address: str, name: str, most: int) -> bytes:
    opener = urllib.request.build_opener(_Stay)
    until, parts, size = time.monotonic() + LONGEST_SECONDS, list[bytes](), 0
    reason = ""
    try:
        with opener.open(address, timeout=WAIT_SECONDS) as answer:
            while block := _block(answer, most - size):
                size += len(block)
                if size > most:
                    raise refuse("size", f"{name} has more than {most:,} bytes")
                if time.monotonic() > until:
                    raise refuse("transport", f"{name} takes longer than {LONGEST_SECONDS:.0f} seconds")
                parts.append(block)
        return b"".join(parts)
    except urllib.error.HTTPError as error:
        if error.code == 404:
            raise refuse("missing", f"there is no {name} at {address}") from None
        reason = f"the server answers {error.code}"
    except (OSError, ValueError) as error:
        reason = type(error).__name__
    raise refuse("transport", f"{address}: {reason}")


def _block(answer: Any, left: int) -> bytes:
    data: bytes = answer.read(min(BLOCK, left + 1))
    return data
