"""Guards against forgetting. The settings of each stand in a section of its own that the guard declares."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, cast

from pydantic import ConfigDict, Field, ModelWrapValidatorHandler, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from llmchain_fl.config.names import one_of
from llmchain_fl.core.section import Section
from llmchain_fl.guards import GUARDS

if TYPE_CHECKING:
    from llmchain_fl.guards.guard import Guard, GuardSettings


class ContinualConfig(Section):
    """Guards against forgetting; composed in the order given. ``[continual.NAME]`` has the settings of guard NAME."""

    model_config = ConfigDict(extra="allow")

    guards: list[Annotated[str, one_of(lambda: list(GUARDS))]] = []
    """Guards in the order in which they act; docs/continual.md says what each does. Only `rehearsal` is charged."""
    public: str = ""
    """Public records that guards may look at (any source; a stage may name its own). Never the test set."""
    public_stages: bool = True
    """Whether `continual.public` holds records of the stages; false: general records, of no stage, without labels."""
    public_size: Annotated[int, Field(ge=1, le=10_000)] = 300
    """Most public records taken, shared out over the stages."""

    def settings_of(self, name: str) -> GuardSettings:
        """The settings of a guard, as given or as usual."""
        given = (self.model_extra or {}).get(name)
        return GUARDS[name].settings() if given is None else cast("GuardSettings", given)

    @property
    def composed(self) -> tuple[tuple[Guard, GuardSettings], ...]:
        """The guards of the run with their settings, in order."""
        return tuple((GUARDS[name], self.settings_of(name)) for name in self.guards)

    @property
    def charged(self) -> bool:
        """Whether some guard reads the sites' own records of earlier stages again, which costs epsilon."""
        return any(settings.claim == "charged" for _, settings in self.composed)

    @model_validator(mode="wrap")
    @classmethod
    def _with_sections(cls, value: Any, handler: ModelWrapValidatorHandler[ContinualConfig]) -> ContinualConfig:
        """Check each guard's section by what the guard declares; a guard that is named has all of its settings."""
        if not isinstance(value, Mapping):
            return handler(value)
        plain = {name: section for name, section in value.items() if name in cls.model_fields}
        sections: dict[str, GuardSettings] = {}
        faults: list[InitErrorDetails] = []
        for name in (name for name in value if name not in plain):
            if name not in GUARDS:
                faults.append(_no_section(str(name), value[name]))
                continue
            try:
                sections[name] = GUARDS[name].settings.model_validate(value[name])
            except ValidationError as error:
                faults += _again(error, name)
        named = plain.get("guards", [])
        for name in named if isinstance(named, list) and not faults else []:
            if isinstance(name, str) and name in GUARDS and name not in sections:
                sections[name] = GUARDS[name].settings()
        try:
            made = handler({**plain, **sections})
        except ValidationError as error:
            faults = [*_again(error), *faults]
        if faults:
            raise ValidationError.from_exception_data(cls.__name__, faults)
        return made


def _again(error: ValidationError, *under: str) -> Iterator[InitErrorDetails]:
    """The faults of ``error``, below ``under``."""
    for fault in error.errors(include_url=False):
        same = PydanticCustomError(fault["type"], fault["msg"], fault.get("ctx"))
        yield InitErrorDetails(type=same, loc=(*under, *fault["loc"]), input=fault["input"])


def _no_section(name: str, value: object) -> InitErrorDetails:
    """The fault of a key that is neither a setting nor a guard; one of before 0.3 is told its new place."""
    guard, _, setting = name.partition("_")
    if setting and guard in GUARDS:
        moved = PydanticCustomError("moved", "is now continual.{new}", {"new": f"{guard}.{setting}"})
        return InitErrorDetails(type=moved, loc=(name,), input=value)
    return InitErrorDetails(type="extra_forbidden", loc=(name,), input=value)
