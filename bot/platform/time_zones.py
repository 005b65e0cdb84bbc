"""Time zones by their IANA names, such as Europe/Berlin."""

import zoneinfo
from collections.abc import Mapping
from functools import cache
from zoneinfo import ZoneInfo

UTC_NAME = "UTC"


@cache
def zone_names() -> Mapping[str, str]:
    """Return the names of all time zones by their case-folded form, in order."""
    # Debian's packages have the machine's own zone among the others.
    names = sorted(zoneinfo.available_timezones() - {"localtime", "Factory"})
    return {name.casefold(): name for name in names}


def find_zone(name: str) -> ZoneInfo | None:
    """Return the time zone with this name, in any letter case; None where there is none."""
    known = zone_names().get(name.strip().casefold().replace(" ", "_"))
    return ZoneInfo(known) if known else None


def zone_name(text: str) -> str:
    """Return the time zone's name as IANA spells it. Raises `ValueError` for an unknown one."""
    zone = find_zone(text)
    if zone is None:
        raise ValueError(f"there is no time zone {text!r}")
    return zone.key


def environment_zone(variable: str | None) -> str:
    """Return the zone that the environment variable TZ names; UTC where it names none.

    POSIX allows other values there, such as `CET-1CEST` or a path.
    """
    zone = find_zone((variable or "").removeprefix(":"))
    return zone.key if zone else UTC_NAME
