"""A site's side of the secure sum: the server learns the sum over those who stay, and of no smaller set.

A round, as one member sees it; every answer is asked for again as often as the network needs it, and is the same::

    key -> shares -> masked -> [confirm] -> unmask         key and shares of round t + 1 travel with round t

* ``key``      signed public keys of the round
* ``shares``   under the directory of all keys: shares of the two secrets, sealed for each neighbour
* ``masked``   given the neighbours' shares: the numbers under all masks, and a statement whom they are masked against
* ``confirm``  given who uploaded, and their statements: "this is the list I was given". Only where many are gone, or
  the graph is sparse (``survivors.py``)
* ``unmask``   given a quorum of such confirmations: of each neighbour *one* share, of the self seed of a survivor or of
  the mask key of one that is gone

Source: Bonawitz et al. 2017, CCS, "Practical secure aggregation", against a server that may send anything to anybody
and know all that ``colluders`` members know. Why it opens no smaller sum, with terms as in ``policy.py``:

1. Nobody's two secrets are both opened: each takes ``threshold`` shares, and honest holders give one share each.
2. All mask against the same members: a share of a survivor's self seed is given only if that survivor has signed the
   list of those who gave shares that the giver has itself.
3. Where many are gone, all unmask the same list: a quorum has confirmed it, and no two lists of a round find one,
   because a member speaks for one list. (Without this step a server that tells different members that different others
   are gone opens the sum of a part: with 5 members and threshold 3, of 2.) Where few are gone, different lists do not
   open too many mask keys (``survivors.py``).
4. So ``floor`` less the colluders honest members are in any sum that is opened, and the masks between them hold.

NOT promised: that the sum is right (a member or the server can spoil it; the server then mostly sees whose fault it
was); that it says little about one member (it is a sum of ``floor`` numbers, with whatever noise they carry); anything
against somebody who may write the store, the record of ``once`` and the site file.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import replace

from llmchain_fl.core.secure.checks import refuse
from llmchain_fl.core.secure.directory import read_directory
from llmchain_fl.core.secure.exchange import PAIR, public_of, secrets_of
from llmchain_fl.core.secure.identity import Body, Identity, check_place, digest, unhex
from llmchain_fl.core.secure.policy import Policy, Terms
from llmchain_fl.core.secure.seat import Seat
from llmchain_fl.core.secure.shamir import SHARE
from llmchain_fl.core.secure.store import Kept, Once, RunFile, SecretStore
from llmchain_fl.core.secure.survivors import check_survivors, endorsed, needs_quorum
from llmchain_fl.core.secure.words import Words


class Member:
    """One site in all its secure sums. What is refused, and by which word: ``checks.py``.

    Args:
        name: this site's.
        identity: its private half.
        policy: what the site asks for.
        store: where it remembers.
        once: what must not happen twice, recorded elsewhere than in the store.

    Raises:
        SecureSumError: own-key; the policy lists another identity under ``name``.
    """

    def __init__(self, name: str, identity: Identity, policy: Policy, store: SecretStore, once: Once) -> None:
        if policy.peers.get(name, identity.public) != identity.public:
            raise refuse("own-key", f"another identity is listed for {name!r}")
        self._name, self._identity, self._policy = name, identity, policy
        self._listed = {**policy.peers, name: identity.public}
        self._store, self._once_recorded = store, once

    def key(self, run: str, number: int) -> bytes:
        """This site's signed keys of a round. The round before the last one is forgotten.

        Raises:
            SecureSumError: old-round, store.
        """
        check_place(run, number, self._name)
        with self._store.opened(run) as file:
            if number not in file.rounds:
                if number < max(file.oldest, max(file.rounds, default=0) - 1):
                    raise refuse("old-round", f"round {number} is over")
                file.rounds[number] = Kept(seed=os.urandom(32).hex())
                file.forget(max(file.rounds) - 1)
            return self._key(run, number, file.rounds[number])

    def shares(self, run: str, number: int, directory: Sequence[bytes], context: str) -> bytes:
        """Shares of this site's secrets for its neighbours, sealed and signed: one message a line.

        Args:
            run, number: the round.
            directory: everybody's signed keys.
            context: digest of the plan that all members must have in common.

        Raises:
            SecureSumError: signature, stranger, twice, round, own-key, few-peers, threshold, one-directory, plan,
                old-round, store.
        """
        with self._store.opened(run) as file:
            state, seat, terms = self._seat(file, run, number, directory, context)
            if not state.bundle:
                bundle, own = seat.give(terms)
                state = replace(
                    state,
                    directory=seat.directory.digest,
                    context=context,
                    bundle=bundle.decode("ascii"),
                    sparse=seat.directory.sparse,
                    members=len(seat.directory.names),
                    holders=tuple(seat.directory.holders(self._name)),
                    quorum=terms.quorum,
                    floor=terms.floor,
                    held={self._name: own},
                )
                self._keep(file, number, state)
            if state.context != context:
                raise refuse("plan", "shares of this round were given under another plan")
            self._check_once(run, number, state, "directory")
            return state.bundle.encode("ascii")

    def check(
        self, run: str, number: int, directory: Sequence[bytes], shared: Sequence[str], shares: Sequence[bytes]
    ) -> None:
        """All checks of :meth:`masked` that need no words, before anything is computed or paid for.

        Raises:
            SecureSumError: what :meth:`masked` would raise.
        """
        with self._store.opened(run) as file:
            state, seat, terms = self._given(file, run, number, directory, shared)
            if not state.upload:
                seat.take(shares, shared, self._listed, terms)

    def masked(
        self,
        run: str,
        number: int,
        directory: Sequence[bytes],
        shared: Sequence[str],
        shares: Sequence[bytes],
        words: Words,
        bits: int,
    ) -> bytes:
        """The upload: a signed statement whom it is masked against, a line end, the masked words packed.

        Asked again it gives the same bytes, whatever ``words`` are by then: nothing is ever masked twice.

        Args:
            run, number: the round.
            directory: everybody's signed keys, as for :meth:`shares`.
            shared: everybody who gave shares.
            shares: what the neighbours among them gave for this site.
            words: uint32 [d] below 2**bits.
            bits: the modulus.

        Raises:
            SecureSumError: what :meth:`shares` raises; own-shares, share, one-upload, words.
        """
        with self._store.opened(run) as file:
            state, seat, terms = self._given(file, run, number, directory, shared)
            if not state.upload:
                taken = seat.take(shares, shared, self._listed, terms)
                state = replace(state, shared=tuple(sorted(shared)), quorum=taken.quorum, floor=taken.floor)
                statement = self._identity.signed("upload", self._place(run, number, state))
                upload = b"\n".join((statement, seat.masked(words, bits, state.shared)))
                state = replace(state, held={**state.held, **taken.held}, upload=hashlib.sha256(upload).hexdigest())
                file.write_upload(number, upload)
                self._keep(file, number, state)
            else:
                upload = file.read_upload(number)
                if hashlib.sha256(upload).hexdigest() != state.upload:
                    raise refuse("store", "the masked upload is damaged or gone")
            self._check_once(run, number, state, "upload")
            return upload

    def confirm(self, run: str, number: int, survivors: Sequence[str], statements: Sequence[bytes]) -> bytes:
        """That these are the survivors that this site was told of, signed; it will unmask for no others.

        Args:
            run, number: the round.
            survivors: everybody who uploaded.
            statements: theirs whom they are masked against, at least the neighbours'.

        Raises:
            SecureSumError: upload-first, survivors, few-survivors, not-among, one-list, one-shared-set, old-round.
        """
        with self._store.opened(run) as file:
            state = self._listed_once(file, run, number, survivors, statements)
            return self._identity.signed("survivors", self._place(run, number, state, survivors=state.survivors))

    def unmask(
        self,
        run: str,
        number: int,
        survivors: Sequence[str],
        statements: Sequence[bytes],
        confirmations: Sequence[bytes] = (),
    ) -> bytes:
        """One share of each neighbour that gave shares: of the self seed of a survivor, of the mask key of the others.

        They stand in the order of the names.

        Args:
            run, number: the round.
            survivors: everybody who uploaded.
            statements: theirs, at least the neighbours'.
            confirmations: of a quorum of them, where one is needed.

        Raises:
            SecureSumError: what :meth:`confirm` raises; confirmations.
        """
        with self._store.opened(run) as file:
            state = self._listed_once(file, run, number, survivors, statements)
            if needs_quorum(state.members, len(state.shared), len(survivors), state.floor, state.sparse):
                expected = self._place(run, number, state, survivors=state.survivors)
                confirmed = endorsed(confirmations, "survivors", expected, self._listed) & set(survivors)
                if len(confirmed) < state.quorum:
                    raise refuse(
                        "confirmations", f"{len(confirmed)} members confirm the list of survivors, of {state.quorum}"
                    )
            shares = ""
            for owner in sorted(set(state.holders) & set(state.shared)):
                pair = unhex(state.held[owner], PAIR)
                shares += (pair[:SHARE] if owner in survivors else pair[SHARE:]).hex()
            return self._identity.signed(
                "answer", self._place(run, number, state, survivors=state.survivors, shares=shares)
            )

    def forget(self, run: str, before_round: int) -> None:
        """Drop the secrets of earlier rounds, for ever; ``key`` does so by itself for all but the last two."""
        with self._store.opened(run) as file:
            file.forget(before_round)

    def _kept(self, file: RunFile, number: int) -> Kept:
        state = file.rounds.get(number)
        if state is None:
            raise refuse("old-round", f"this site has no secrets of round {number}")
        return state

    def _keep(self, file: RunFile, number: int, state: Kept) -> None:
        file.rounds[number] = state
        file.save()

    def _key(self, run: str, number: int, state: Kept) -> bytes:
        secrets = secrets_of(unhex(state.seed, 32))
        fields: Body = {"run": run, "round": number, "site": self._name, "identity": self._identity.public}
        fields |= {"mask": public_of(secrets.mask).hex(), "box": public_of(secrets.box).hex()}
        return self._identity.signed("key", {**fields, "self": hashlib.sha256(secrets.self_seed).hexdigest()})

    def _seat(
        self, file: RunFile, run: str, number: int, messages: Sequence[bytes], context: str
    ) -> tuple[Kept, Seat, Terms]:
        """Checks of the directory: signatures, names, round, own key, number, threshold; the first one given stays."""
        state, policy = self._kept(file, number), self._policy
        directory = read_directory(messages, (run, number), self._listed, policy.all_pairs, policy.neighbours)
        if self._key(run, number, state) not in messages:
            raise refuse("own-key", f"the keys of {self._name!r} are not in the directory as it gave them")
        terms = policy.terms(len(directory.names), len(directory.holders(self._name)))
        if state.directory and state.directory != directory.digest:
            raise refuse("one-directory", "this site gave shares under another directory of this round")
        seat = Seat(self._name, run, number, self._identity, secrets_of(unhex(state.seed, 32)), directory, context)
        return state, seat, terms

    def _given(
        self, file: RunFile, run: str, number: int, messages: Sequence[bytes], shared: Sequence[str]
    ) -> tuple[Kept, Seat, Terms]:
        """The same of a round in which this site gave shares; whom an upload is masked against stays."""
        state = self._kept(file, number)
        if not state.bundle:
            raise refuse("one-directory", "this site gave no shares in this round")
        state, seat, terms = self._seat(file, run, number, messages, state.context)
        self._check_once(run, number, state, "directory")
        if state.upload and sorted(shared) != list(state.shared):
            raise refuse("one-upload", "the upload is masked against others")
        return state, seat, terms

    def _listed_once(
        self, file: RunFile, run: str, number: int, survivors: Sequence[str], statements: Sequence[bytes]
    ) -> Kept:
        """Checks of a list of survivors; it is the only one of the round from here on."""
        state = self._kept(file, number)
        if state.upload:
            self._check_once(run, number, state, "upload")
        stated = endorsed(statements, "upload", self._place(run, number, state), self._listed)
        listed = replace(state, survivors=check_survivors(state, self._name, survivors, stated))
        self._check_once(run, number, listed, "survivors")
        if state != listed:
            self._keep(file, number, listed)
        return listed

    def _place(self, run: str, number: int, state: Kept, **more: str) -> Body:
        place: Body = {"run": run, "round": number, "site": self._name, "directory": state.directory}
        return {**place, "shared": digest(list(state.shared)), **more}

    def _check_once(self, run: str, number: int, state: Kept, step: str) -> None:
        """Record what this round's step was, or refuse it where another one is recorded."""
        done = {"directory": digest([state.directory, state.context, state.bundle])}
        done |= {"upload": state.upload, "survivors": state.survivors}
        self._once_recorded(f"secure-sum/{digest(run)[:32]}/{number}/{step}", done[step])
