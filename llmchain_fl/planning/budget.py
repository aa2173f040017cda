"""How many bytes a round takes on the way up, before round 1; and what a run may not combine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import cast

from llmchain_fl.core.codec_spec import CodecSpec, Name
from llmchain_fl.core.compression import CODECS
from llmchain_fl.core.compression.update import Shapes, blob_size

_ANY = 2**40
"""An array longer than any block: the codec's bound for arrays of any length."""


def budget(shapes: Shapes, spec: CodecSpec) -> int:
    """Bytes of values that one site sends in one round: exactly, whatever it learns.

    Names, headers and the receipt come on top: with Flower about 300 bytes and 200 for each array.
    """
    return sum(blob_size(shape, spec) for shape in shapes.values())


def seconds_on(size: int, link_kbit: float) -> float:
    """Seconds that ``size`` bytes take at ``link_kbit`` thousand bits a second; 0 where no link is given."""
    return 8 * size / (1000 * link_kbit) if link_kbit else 0.0


def upload_line(size: int, plain: int, link_kbit: float = 0.0, of: str = "both factors") -> str:
    """One line for the progress and the report.

    Args:
        size: bytes of a round and site.
        plain: the same of all that could be sent, in fp32.
        link_kbit: of a site's link; 0: not said.
        of: what ``plain`` is.

    Returns:
        Such as ``up 13.8 KB a round and site (0.11 of both factors in fp32), 0.4 s at 256 kbit/s``.
    """
    link = f", {seconds_on(size, link_kbit):.1f} s at {link_kbit:g} kbit/s" if link_kbit else ""
    return f"up {_short(size)} a round and site ({size / plain:.2g} of {of} in fp32){link}"


def faults(spec: CodecSpec, *, rule: str, steady: bool, unit: str) -> list[str]:
    """What this codec may not be combined with; empty: nothing.

    Args:
        spec: the run's codec.
        rule: its aggregation rule.
        steady: whether that rule's factors keep their coordinates from round to round.
        unit: the privacy unit; "" without privacy.

    | run | outcome |
    |---|---|
    | bf16, int8, int4 without feedback | fine with every rule and unit: unbiased |
    | top-k, or feedback, under a rule that turns its factors | a fault: what was left out means nothing afterwards |
    | feedback with the unit ``site`` | a fault: no noise covers it, and it lifts the update above the clip norm |
    | feedback with a codec that may add more than it keeps (int4, top-k in long blocks) | a fault: memory would grow |
    | feedback with ``none`` | a fault: nothing is left out |
    """
    codec, lines = CODECS[spec.name], []
    if not steady and (spec.feedback or not codec.unbiased):
        lines.append(
            f'aggregation.rule = "{rule}" turns its factors in every round: what compression.up = "{spec.name}" leaves '
            'out cannot be added later; take "bf16", "int8" or "int4", with compression.feedback = false'
        )
    if spec.feedback and unit == "site":
        lines.append(
            'compression.feedback keeps what no noise has covered where privacy.unit = "site"; set it to false'
        )
    if spec.feedback and spec.name == "none":
        lines.append('compression.feedback = true has nothing to remember with compression.up = "none"')
    elif spec.feedback and codec.error(_ANY, spec) >= 1:
        lines.append(
            f'compression.block = {spec.block} is too long for "{spec.name}" with feedback: its error can exceed the '
            "update; set it to 64"
        )
    return lines


def link_faults(
    updates: Mapping[str, Shapes], spec: CodecSpec, *, steady: bool, link_kbit: float, max_seconds: float
) -> list[str]:
    """Updates that the slowest link cannot carry in the time allowed; empty: all fit, or no link is given.

    Args:
        updates: kind of round, such as ``"an odd round"`` -> what a site sends in it; each must fit.
        spec: the run's codec.
        steady: whether the rule lets ``top-k`` be chosen instead.
        link_kbit: thousand bits a second of the slowest site; 0: not checked.
        max_seconds: most time that one upload may take.
    """
    lines = []
    for kind, shapes in updates.items():
        size = budget(shapes, spec)
        seconds = seconds_on(size, link_kbit)
        if seconds <= max_seconds:
            continue
        sizes = {
            name: budget(shapes, replace(spec, name=cast("Name", name)))
            for name in CODECS
            if steady or CODECS[name].unbiased
        }
        times = {name: seconds_on(other, link_kbit) for name, other in sizes.items()}
        fit = [f'"{name}" ({took:.1f} s)' for name, took in times.items() if took <= max_seconds]
        remedy = f"set it to {' or '.join(fit)}" if fit else "lower adapter.rank, or take a rule that sends less"
        lines.append(
            f'compression.up = "{spec.name}" sends {_short(size)} in {kind}: {seconds:.1f} s at {link_kbit:g} kbit/s, '
            f"more than compression.max_seconds = {max_seconds:g}; {remedy}"
        )
    return lines


def _short(size: float) -> str:
    """Bytes in thousands or millions."""
    if size < 1000:
        return f"{size:.0f} B"
    return f"{size / 1e3:.1f} KB" if size < 1e6 else f"{size / 1e6:.1f} MB"
