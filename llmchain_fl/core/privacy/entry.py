"""Who may take part in a release: decided for each person by that person's own groups and by what was released.

Nothing here depends on who else is in the data, so that one person more or less changes the part of nobody else.

For a new release, of somebody with the profile P:

1. a group of P that pays for the release is left by the line of the release, unless P with all that it pays now stays
   within the limit (in the order of the charges): its budget is used up, and it takes no part;
2. then each group under which the person was named is joined, in order, unless P holds a group that excludes it, or P
   with that group would pass the limit.

So nobody's total passes the limit by anything charged to a group, whether that person is in the data today or not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from llmchain_fl.core.privacy.groups import EVERYBODY
from llmchain_fl.core.privacy.register import Profile, Stay, excluded, joined, left

Fits = Callable[[Profile], bool]


@dataclass
class Moves:
    """Who joins and who leaves which group, as keyed hashes."""

    joined: dict[str, list[bytes]] = field(default_factory=dict)
    left: dict[str, list[bytes]] = field(default_factory=dict)

    def note(self, person: bytes, before: Profile, after: Profile) -> None:
        """Write down what changes for ``person``."""
        for group, until in after - before:
            (self.left if until else self.joined).setdefault(group, []).append(person)


@dataclass(frozen=True)
class Door:
    """Lets people in and out."""

    fits: Fits
    """Whether the limit holds for a profile, with the release in it."""
    charged: tuple[str, ...]
    """The groups that pay for the release, in order."""
    line: int
    """Of the release in the log; 0 where it stands there already, and nobody leaves."""

    def decide(
        self, register: dict[bytes, Profile], parts: Sequence[tuple[str, Sequence[bytes]]]
    ) -> tuple[Moves, list[list[bool]]]:
        """(who moves; for each part who of its people may take part, in their order)."""
        wanted: dict[bytes, tuple[str, ...]] = {}
        for group, people in parts:
            for person in people:
                so_far = wanted.get(person, ())
                wanted[person] = so_far if group in so_far else (*so_far, group)
        moves, after = Moves(), dict[bytes, Profile]()
        known: dict[tuple[Profile, tuple[str, ...]], Profile] = {}
        for person in {**dict.fromkeys(register), **wanted}:
            before, groups = register.get(person, frozenset()), wanted.get(person, ())
            if (before, groups) not in known:
                known[before, groups] = self._entered(self._stayed(before), groups)
            after[person] = known[before, groups]
            if after[person] != before:
                moves.note(person, before, after[person])
        return moves, [
            [group == EVERYBODY or Stay(group) in after[person] for person in people] for group, people in parts
        ]

    def _stayed(self, profile: Profile) -> Profile:
        """Step 1."""
        paying = [group for group in self.charged if Stay(group) in profile] if self.line else []
        if not paying or self.fits(profile):
            return profile
        stays = profile
        for group in paying:
            stays = left(stays, group, self.line)
        for group in paying:
            again = joined(stays, group)
            stays = again if self.fits(again) else stays
        return stays

    def _entered(self, profile: Profile, groups: Iterable[str]) -> Profile:
        """Step 2."""
        for group in groups:
            if group == EVERYBODY or Stay(group) in profile or excluded(profile, group):
                continue
            more = joined(profile, group)
            profile = more if self.fits(more) else profile
        return profile
