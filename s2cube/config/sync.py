"""Settings of `s2cube sync`."""

import re
from datetime import time, timedelta
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from s2cube.config._parsers import empty_to_none, split_names
from s2cube.config._section import Section
from s2cube.config.literals import Product

_DURATION = re.compile(r"(\d{1,5})([mhdw])")
_UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}
_CLOCK = re.compile(r"([01]\d|2[0-3]):([0-5]\d)")


def parse_duration(value: object) -> object:
    """Convert a text such as ``30d``, ``12h``, ``15m`` or ``2w`` to a duration. Return any other value unchanged."""
    if not isinstance(value, str):
        return value
    found = _DURATION.fullmatch(value.strip())
    if not found:
        raise ValueError("is not a duration", "Write a number and m, h, d or w: 90m, 12h, 30d, 2w")
    return int(found[1]) * _UNITS[found[2]]


def parse_clock(value: object) -> object:
    """Convert a text such as ``06:00`` to a time of day. Return any other value unchanged."""
    if not isinstance(value, str):
        return value
    found = _CLOCK.fullmatch(value.strip())
    if not found:
        raise ValueError("is not a time of day", "Write hours and minutes: 06:00")
    return time(int(found[1]), int(found[2]))


def check_positive(value: timedelta) -> timedelta:
    """Check that a duration is longer than nothing."""
    if value <= timedelta(0):
        raise ValueError("is not more than 0", "Write a number and m, h, d or w: 90m, 12h, 30d, 2w")
    return value


def parse_catalogue(value: object) -> object:
    """Split ``URL,COLLECTION`` at the last comma. Return any other value unchanged."""
    if not isinstance(value, str):
        return value
    address, _, collection = (part.strip() for part in value.rpartition(","))
    if not address or not collection:
        raise ValueError("is not the address of a catalogue, a comma and a collection", "Write URL,COLLECTION")
    if "@" in urlsplit(address).netloc:
        raise ValueError("must not contain a user or a password")
    return address, collection


_Duration = Annotated[timedelta, BeforeValidator(parse_duration), AfterValidator(check_positive)]


class SyncSection(Section):
    """Keeping an output up to date."""

    lookback: _Duration = Field(
        "30d",
        validate_default=True,
        description="Look for new, late and changed scenes of this time, DURATION such as 30d.",
    )
    products: Annotated[tuple[Product, ...], BeforeValidator(split_names), Field(min_length=1)] = Field(
        ("images",), description="PRODUCTS to keep up to date, comma-separated: images, statistics, composites."
    )
    full: bool = Field(False, description="Look through all of --datetime.")
    once: bool = Field(False, description="Make one pass. This is the default, unless --every or --at is set.")
    every: Annotated[_Duration | None, BeforeValidator(empty_to_none)] = Field(
        None, description="Make a pass now, and then one each DURATION, such as 1d or 6h."
    )
    at: Annotated[time | None, BeforeValidator(parse_clock), BeforeValidator(empty_to_none)] = Field(
        None, description="Make a pass every day at this TIME of the local clock, such as 06:00."
    )
    on_change: Annotated[str | None, BeforeValidator(empty_to_none)] = Field(
        None, description="COMMAND that a shell runs after a pass that changed files; its stdin is the pass as JSON."
    )
    pending_for: _Duration = Field(
        "7d",
        validate_default=True,
        description="Wait this time for scenes that cannot be read yet, DURATION such as 7d.",
    )
    also: Annotated[tuple[str, str] | None, BeforeValidator(parse_catalogue), BeforeValidator(empty_to_none)] = Field(
        None, description="URL,COLLECTION of a second catalogue, for scenes that the first one lacks."
    )

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.every and self.at:
            raise ValueError("every and at exclude each other", "Remove one of them")
        return self
