"""Who is still there, and who says so: what a member checks before it gives away a share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from llmchain_fl.core.secure.checks import refuse
from llmchain_fl.core.secure.identity import Body, digest, read
from llmchain_fl.core.secure.store import Kept


def check_survivors(state: Kept, name: str, survivors: Sequence[str], stated: set[str]) -> str:
    """The digest of a list of survivors that ``name`` may unmask for.

    ======================================================  ========================
    list                                                    refused
    ======================================================  ========================
    in a round without an upload of this member             upload-first
    a name twice                                            twice
    somebody who gave no shares                             survivors
    this member is not in it                                not-among
    fewer than the largest floor of all whose shares it has few-survivors
    a neighbour in it is not in ``stated``                  one-shared-set
    another list than before                                one-list
    ======================================================  ========================

    Args:
        state: what the member knows of the round.
        name: the member.
        survivors: the list.
        stated: who has signed that it is masked against the same members.

    Raises:
        SecureSumError: see the table.
    """
    alive = set(survivors)
    if not state.upload:
        raise refuse("upload-first", f"{name!r} has not uploaded")
    if len(alive) < len(survivors):
        raise refuse("twice", "a site stands twice among the survivors")
    if not alive <= set(state.shared):
        raise refuse("survivors", "a survivor gave no shares: nothing is masked against it")
    if name not in alive:
        raise refuse("not-among", f"{name!r} uploaded and is called gone")
    if len(alive) < state.floor:
        raise refuse("few-survivors", f"{len(alive)} survivors of {state.floor} that are asked for")
    if not alive & set(state.holders) <= stated | {name}:
        raise refuse("one-shared-set", "a survivor has not stated that it is masked against the same members")
    hexdigest = digest(sorted(alive))
    if state.survivors not in ("", hexdigest):
        raise refuse("one-list", "the round has another list of survivors")
    return hexdigest


def needs_quorum(members: int, shared: int, survivors: int, floor: int, sparse: bool) -> bool:
    """Whether a list of survivors has to be confirmed by a quorum before anybody unmasks for it.

    With n members, a floor of n - d and no confirmations a server can tell each member another list of at most g that
    are gone. The h honest members then give at most h g shares of mask keys; one key takes more than h / 2 of them
    (``policy.py``), so fewer than 2 g keys are opened: no more than d while 2 g <= d + 1. Whoever confirms a list
    leaves too few others to open a key of its survivors.

    =======================================================  =========
    case                                                     confirmed
    =======================================================  =========
    a sparse graph                                           always
    everybody who gave shares survived                       no: no mask key is opened
    2 (members - survivors) <= members - floor + 1           no
    otherwise                                                yes
    =======================================================  =========
    """
    return sparse or (survivors < shared and 2 * (members - survivors) > members - floor + 1)


def endorsed(messages: Sequence[bytes], kind: str, expected: Body, listed: Mapping[str, str]) -> set[str]:
    """Who has signed ``expected`` as its own; whoever signed something else does not count.

    Raises:
        SecureSumError: form, twice, stranger, signature; a message is none, or not of whom it says.
    """
    if len(messages) > len(listed):
        raise refuse("twice", f"{len(messages)} messages of {len(listed)} listed sites")
    signers: set[str] = set()
    for message in messages:
        statement = read(message, kind)
        name = statement.text("site")
        if name not in listed:
            raise refuse("stranger", f"{name!r} is not listed")
        statement.check(listed[name])
        if statement.body == {**expected, "site": name}:
            signers.add(name)
    return signers
