"""What a codec left out is not lost: the site remembers it and adds it to its next update (EF-SGD).

Karimireddy et al. 2019, arXiv 1901.09847, algorithm 1. In round t, with update x_t, memory e (0 at first), codec C:

    send C(x_t + e)                      e' = x_t + e - decode(C(x_t + e))

so over T rounds ``sum of what was sent = sum x_t - e_T``: nothing is dropped, only delayed, and e stays bounded where C
contracts (``Codec.error`` below 1). Memory is kept for each array by name: one that is not trained in a round (rolora)
keeps its own.

Privacy. e is a function of noised updates and of what was sent, so what is added to later updates is post-processing
and costs no epsilon, *if every update that e was made from was itself sealed and paid for*. A site that crashes between
writing e' and sealing computes the round again, with new noise, from the **old** e; were the first e' kept, a second
view of the same records would leave with the next round. So the file holds two memories and the digest of one payload:

    before: what round t started from          after: e', good only if the ledger sealed exactly that payload

| a round n is asked for, the file is of round t | starts from |
|---|---|
| no file | zeros |
| n = t (crashed before the seal, or a run without privacy that goes back one round) | before |
| n > t, without privacy | after |
| n > t, the ledger sealed the payload of t | after |
| n > t, the ledger sealed nothing for t (nothing left) | before |
| n > t, it sealed another payload, or has its bytes no more | zeros |
| n < t (the server went back by more than a round) | zeros |
| an array is new | zeros for it |
| an array has another shape, or the file is damaged | RunError |

A sealed round is never computed again: the ledger gives the same bytes, and the memory is not touched. A reply that is
lost on the way is lost, as it is without memory. With privacy unit ``site`` the noise is the server's, so e would hold
what no noise has covered and lift what leaves above the clip norm: refused (``budget.py``).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from llmchain_fl.compression.codec import Blob, CodecSpec, Draw
from llmchain_fl.compression.update import Floats, decode, encode
from llmchain_fl.errors import PrivacyError, RunError
from llmchain_fl.privacy.durable import make_folder, remove, replace

Arrays = dict[str, Floats]
Sealed = Callable[[int], bytes | None]
"""Round -> the payload that the ledger sealed for it, None if none; PrivacyError if its bytes are gone."""

KEPT_RUNS = 4
"""How many runs' memories stay in a folder: those written last."""


@dataclass(frozen=True)
class Memory:
    """The file's content. ``payload``: SHA-256 of the payload that made ``after`` out of ``before``."""

    round: int
    payload: str
    before: Arrays
    after: Arrays


def memory_file(folder: Path, run: str) -> Path:
    """The file of one run. The name is a hash: ``run`` is the server's text, and may not lead out of the folder."""
    return folder / f"{hashlib.sha256(run.encode(errors='surrogatepass')).hexdigest()[:32]}.safetensors"


def encode_with_memory(
    file: Path, number: int, delta: Mapping[str, Floats], spec: CodecSpec, draw: Draw, sealed: Sealed | None
) -> dict[str, Blob]:
    """The blobs of round ``number``; what they leave out is on the disk when this returns, and not yet trusted.

    The caller seals ``save(blobs)`` (safetensors), and nothing else, before anything leaves.

    Args:
        file: ``memory_file(the site's own folder, run)``.
        number: of the round.
        delta: trained minus received, noised where the run has noise.
        spec: the run's codec.
        draw: uniforms, see ``update.encode``.
        sealed: asks the ledger; None in a run without privacy.

    Raises:
        RunError: the file cannot be read or written, or is of other shapes.
        TrainingError: a number that is not finite.
    """
    before = residual(read_memory(file), number, sealed)
    total = {name: _sum(name, value, before) for name, value in delta.items()}
    blobs = encode(total, spec, draw)
    sent = decode(blobs, {name: value.shape for name, value in total.items()}, spec)
    after = before | {name: (value - sent[name]).astype(np.float32) for name, value in total.items()}
    _write(file, Memory(number, hashlib.sha256(save(blobs)).hexdigest(), before, after))
    return blobs


def residual(memory: Memory | None, number: int, sealed: Sealed | None) -> Arrays:
    """The memory that round ``number`` starts from; see the table of the module."""
    if memory is None or number < memory.round:
        return {}
    if number == memory.round:
        return memory.before
    if sealed is None:
        return memory.after
    try:
        payload = sealed(memory.round)
    except PrivacyError:  # sealed, but its bytes are gone: it may have been another one
        return {}
    if payload is None:
        return memory.before
    return memory.after if hashlib.sha256(payload).hexdigest() == memory.payload else {}


def read_memory(file: Path) -> Memory | None:
    """The file's content, None where there is none.

    Raises:
        RunError: it is damaged (it is replaced as a whole: the disk or a hand did it), or cannot be read.
    """
    if not file.exists():
        return None
    try:
        with safe_open(file, framework="numpy") as opened:
            facts = json.loads(opened.metadata()["memory"])
            arrays = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (not a dict)
        parts = (_part(arrays, "before/"), _part(arrays, "after/"))
        return Memory(int(facts["round"]), str(facts["payload"]), *parts)
    except (SafetensorError, KeyError, ValueError, TypeError, OSError) as error:
        raise RunError(
            "the memory of what compression left out is damaged",
            remedy=f"delete {file}: the site goes on without what it had left out so far",
        ) from error


def _sum(name: str, value: Floats, before: Arrays) -> Floats:
    if name not in before:
        return value.astype(np.float32)
    if before[name].shape != value.shape:
        raise RunError(
            f"the memory of {name!r} has shape {before[name].shape}, its update {value.shape}",
            remedy="one run keeps its shapes; delete the site's feedback folder to go on without the memory",
        )
    return (value + before[name]).astype(np.float32)


def _part(arrays: Arrays, prefix: str) -> Arrays:
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}


def _write(file: Path, memory: Memory) -> None:
    arrays = {f"before/{name}": value for name, value in memory.before.items()}
    arrays |= {f"after/{name}": value for name, value in memory.after.items()}
    facts = json.dumps({"round": memory.round, "payload": memory.payload})
    try:
        make_folder(file.parent)
        replace(file, save(arrays, metadata={"memory": facts}))
        others = sorted(set(file.parent.glob("*.safetensors")) - {file}, key=lambda path: path.stat().st_mtime_ns)
        for old in others[: len(others) + 1 - KEPT_RUNS] if len(others) >= KEPT_RUNS else []:
            remove(old)
    except OSError as fault:
        raise RunError(
            f"the memory of what compression left out cannot be written (errno {fault.errno})",
            remedy="free or repair the site's disk; nothing was sent for this round",
        ) from fault
