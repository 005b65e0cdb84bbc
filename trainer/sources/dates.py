"""Parses dates and times in the formats of chat exports, which follow the device's language.

`03/04/24` is either 3 April or 4 March: a single line is ambiguous, but all lines of a file
together rarely are. `DateOrderDetector` sees every date and picks the order in which all dates
exist, time runs forward, and the chat spans the shortest time.
"""

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Literal

DateOrder = Literal["dmy", "mdy", "ymd"]
DATE_ORDERS: tuple[DateOrder, ...] = ("dmy", "mdy", "ymd")
SPACE = "[ \t\u00a0\u2007\u2009\u202f]"
AM_WORDS = (
    "凌晨 早上 清晨 上午 午前 오전 ص ق.ظ. ق.ظ sa öö pg de de. π.μ. पूर्वाह्न म.पू. পূর্বাহ্ণ முற்பகல் "
    "ก่อนเที่ยง ጥዋት"
).split()
PM_WORDS = (
    "中午 下午 傍晚 晚上 午後 오후 م ب.ظ. ب.ظ ch ös ptg du du. μ.μ. अपराह्न म.उ. অপরাহ্ণ பிற்பகல் "
    "หลังเที่ยง ከሰዓት"
).split()
MONTH_WORDS = "jan feb mar apr may jun jul aug sep oct nov dec".split()
MONTHS = {word: number for number, word in enumerate(MONTH_WORDS, start=1)}
HALF_WORDS = sorted(AM_WORDS + PM_WORDS, key=len, reverse=True)  # "de." before "de"
HALF_DAY = rf"[ap]\.?{SPACE}?m\b\.?|" + "|".join(map(re.escape, HALF_WORDS))
DATE = (
    rf"(?P<date>\d{{1,4}}(?P<sep>[./-]){SPACE}?(?:\d{{1,2}}|[A-Za-z]{{3}})(?P=sep){SPACE}?\d{{1,4}}\.?"
    rf"|\d{{4}}年{SPACE}?\d{{1,2}}月{SPACE}?\d{{1,2}}日"
    rf"|\d{{4}}년{SPACE}?\d{{1,2}}월{SPACE}?\d{{1,2}}일)"
)
TIME = r"(?P<time>\d{1,2}[:.]\d{2}(?:[:.]\d{2})?)(?:[.,]\d+)?"
DATE_FIRST = (
    rf"{DATE}(?:[,،.]{SPACE}*|{SPACE}+)(?:[^\W\d]{{1,4}}\.?{SPACE}+)??"
    rf"(?:(?P<half>{HALF_DAY}){SPACE}?)?{TIME}(?:{SPACE}?(?P<half_after>{HALF_DAY}))?"
)
"""Skips a word between date and time ("à", "klo"); AM or PM may precede or follow the time."""
TIME_FIRST = rf"{TIME}(?:{SPACE}?(?P<half>{HALF_DAY}))?(?P<half_after>)[,،]?{SPACE}+{DATE}"
CLOCK = rf"(?:(?P<half>{HALF_DAY}){SPACE}*)?{TIME}(?:{SPACE}*(?P<half_after>{HALF_DAY}))?"
MONTH_NAME = rf"(?P<month>{'|'.join(MONTHS)})[a-z]*\.?"
MONTH_NAME_AFTER = MONTH_NAME.replace("month", "month_after")
NAMED_MONTH = (
    rf"(?:[a-z]{{3,9}}\.?,{SPACE}*)?"
    rf"(?:{MONTH_NAME}{SPACE}+(?P<day>\d{{1,2}})"
    rf"|(?P<day_before>\d{{1,2}})\.?{SPACE}+{MONTH_NAME_AFTER})"
    rf",?{SPACE}+(?P<year>\d{{4}})"
)
"""English dates in words: `January 5, 2026`, `Monday, 5 Jan 2026`."""
AFTER_NAMED_MONTH = rf"(?:,?{SPACE}+(?:at{SPACE}+)?{CLOCK}(?:{SPACE}+(?:UTC|GMT|Z))?)?"
SILLYTAVERN_TIME = (
    r"(\d{4})-(\d{1,2})-(\d{1,2})[ ]?@[ ]?(\d{1,2})h[ ]?(\d{1,2})m[ ]?(?:(\d{1,2})s)?.*"
)
EPOCH = date(1970, 1, 1).toordinal()
DAY_S = 86_400
EARLIEST_EPOCH_S, LATEST_EPOCH_S = 946_684_800, 4_102_444_800
"""2000 and 2100. A number outside, in seconds, milliseconds or microseconds, is no time."""
BUDDHIST_YEAR_OFFSET = 543
PERSIAN_YEARS = range(1350, 1425)
"""1971 to 2046. Later years up to 1499 are of the Islamic calendar: 2004 to 2076."""
ISLAMIC_YEARS = range(1425, 1500)
PERSIAN_EPOCH = date(622, 3, 21).toordinal()
ISLAMIC_EPOCH = date(622, 7, 19).toordinal()


@dataclass(frozen=True, slots=True)
class WrittenTime:
    """A date and time as written: the date's three `numbers` in order, and `seconds` since
    midnight.

    `looks_american`: slashes, a two-digit year and capital AM or PM, as written by devices set to
    US English. `exact` is the timestamp in seconds since 1970 if it was written in ISO 8601.
    """

    numbers: tuple[int, int, int]
    seconds: int
    looks_american: bool = False
    exact: float | None = None

    def at(self, order: DateOrder) -> float | None:
        """Return seconds since 1970, taking the time as UTC; None if there is no such day or
        time.
        """
        if self.exact is not None:
            return self.exact
        day = day_number(self.numbers, order)
        if day is None or self.seconds < 0:
            return None
        return float((day - EPOCH) * DAY_S + self.seconds)


def parse_time(written: str) -> WrittenTime | None:
    """Parse a text that consists of a timestamp; None for other texts."""
    try:
        moment = datetime.fromisoformat(written.strip())
    except ValueError:
        match = re.fullmatch(DATE_FIRST, written.strip(), re.IGNORECASE)
        return time_of_match(match) if match else None
    exact = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    return WrittenTime((moment.year, moment.month, moment.day), 0, exact=exact)


def time_of_match(match: re.Match[str]) -> WrittenTime:
    """Convert a match of `DATE_FIRST` or `TIME_FIRST`; its seconds are -1 if there is no such
    time.
    """
    half = (match["half"] or match["half_after"] or "").casefold()
    has_short_year = len(re.findall(r"\d+|[A-Za-z]{3}", match["date"])[2]) == 2
    has_capital_half = re.search(r"[AP]M", match[0]) is not None
    return WrittenTime(
        _date_numbers(match["date"]),
        _seconds(match["time"], half),
        looks_american=match["sep"] == "/" and has_short_year and has_capital_half,
    )


def _date_numbers(written: str) -> tuple[int, int, int]:
    """Return the three numbers of a date in the order in which they are written."""
    numbers = []
    for part in re.findall(r"\d+|[A-Za-z]{3}", written):
        if part.isdigit():
            numbers.append(int(part))
        else:
            numbers.append(MONTHS.get(part.casefold(), 0))
    first, second, third = numbers
    return first, second, third


def _seconds(time: str, half: str) -> int:
    """Return seconds since midnight; -1 if there is no such time."""
    parts = [int(part) for part in re.split(r"[:.]", time)]
    hour, minute, second = [*parts, 0][:3]
    if half and hour <= 12:
        is_evening = half in PM_WORDS or (half.startswith("p") and half != "pg")
        # 12 at night is the hour 0, and 12 at noon stays 12.
        hour %= 12
        if is_evening:
            hour += 12
    if hour >= 24 or minute >= 60 or second >= 60:
        return -1
    return hour * 3600 + minute * 60 + second


def parse_moment(value: object) -> WrittenTime | None:
    """Parse a cell that holds a time: a text in any format of this module, or a number since 1970;
    else None.

    Numbers are seconds, milliseconds or microseconds, whichever lies between 2000 and 2100.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    text = str(value).strip()
    if re.fullmatch(r"\d{9,16}(?:\.\d+)?", text):
        for units_per_second in (1, 1_000, 1_000_000):
            at = float(text) / units_per_second
            if EARLIEST_EPOCH_S <= at <= LATEST_EPOCH_S:
                return WrittenTime((0, 0, 0), 0, exact=at)
        return None
    if len(text) > 64 or not any(map(str.isdigit, text)) or text.isdecimal():
        return None
    for parse in (parse_time, parse_named_month, _parse_sillytavern, _parse_day):
        moment = parse(text)
        if moment:
            return moment
    return None


def parse_named_month(text: str) -> WrittenTime | None:
    """Parse an English date in words, with or without a time, as UTC; None for other texts."""
    match = re.fullmatch(NAMED_MONTH + AFTER_NAMED_MONTH, text.strip(), re.IGNORECASE)
    if match is None:
        return None
    month = MONTHS[(match["month"] or match["month_after"]).casefold()]
    numbers = (int(match["year"]), month, int(match["day"] or match["day_before"]))
    half = (match["half"] or match["half_after"] or "").casefold()
    seconds = _seconds(match["time"], half) if match["time"] else 0
    at = WrittenTime(numbers, seconds).at("ymd")
    return None if at is None else WrittenTime(numbers, 0, exact=at)


def parse_clock(text: str) -> int | None:
    """Parse a time of day; returns seconds since midnight, or None for other texts."""
    match = re.fullmatch(CLOCK, text.strip(), re.IGNORECASE)
    if match is None:
        return None
    half = match["half"] or match["half_after"] or ""
    seconds = _seconds(match["time"], half.casefold())
    return seconds if seconds >= 0 else None


def _parse_sillytavern(text: str) -> WrittenTime | None:
    match = re.fullmatch(SILLYTAVERN_TIME, text)
    if match is None:
        return None
    year, month, day, hour, minute, second = (int(part or 0) for part in match.groups())
    at = WrittenTime((year, month, day), hour * 3600 + minute * 60 + second).at("ymd")
    return None if at is None else WrittenTime((year, month, day), 0, exact=at)


def _parse_day(text: str) -> WrittenTime | None:
    """Parse a date without a time, which may be followed by a day of the week in brackets."""
    match = re.fullmatch(rf"{DATE}{SPACE}*(?:[(（][^()（）]{{1,12}}[)）])?", text, re.IGNORECASE)
    if match is None:
        return None
    return WrittenTime(_date_numbers(match["date"]), 0)


def day_number(numbers: tuple[int, int, int], order: DateOrder) -> int | None:
    """Return the day's ordinal number; None if there is no such day."""
    day, month, year = (numbers[order.index(part)] for part in "dmy")
    if year < 100:
        year += 2000
    elif year > 2400:
        year -= BUDDHIST_YEAR_OFFSET  # devices in Thai
    elif year in PERSIAN_YEARS or year in ISLAMIC_YEARS:
        return _eastern_day_number(year, month, day)
    if not (1970 <= year < 2200 and 1 <= month <= 12 and 1 <= day <= 31):
        return None
    try:
        return date(year, month, day).toordinal()
    except ValueError:
        return None


def _eastern_day_number(year: int, month: int, day: int) -> int | None:
    """Return the ordinal number of a day of the Persian or the Islamic calendar; None if there is no
    such day.

    The Islamic one is the tabular calendar, which may be a day off the observed one; the Persian
    one has its leap years in cycles of 33 years. Source: Dershowitz and Reingold, Calendrical
    Calculations.
    """
    if year in PERSIAN_YEARS:
        days_in_month = 31 if month <= 6 else 30
        before = 365 * (year - 1) + (8 * year + 21) // 33 + 30 * (month - 1) + min(month - 1, 6)
        epoch = PERSIAN_EPOCH
    else:
        days_in_month = 29 + month % 2 if month < 12 else 30
        before = 354 * (year - 1) + (11 * year + 3) // 30 + 29 * (month - 1) + month // 2
        epoch = ISLAMIC_EPOCH
    if not (1 <= month <= 12 and 1 <= day <= days_in_month):
        return None
    return epoch + before + day - 1


class DateOrderDetector:
    """Detects the order of day, month and year from all dates of a file, in constant memory."""

    def __init__(self) -> None:
        self._last: tuple[int, int, int] | None = None
        self._tracks = {order: _OrderFaults() for order in DATE_ORDERS}
        self._american = 0

    def add(self, stamp: WrittenTime) -> None:
        """Add the next date of the file."""
        if stamp.numbers == self._last or stamp.exact is not None:
            return
        self._last = stamp.numbers
        self._american += 1 if stamp.looks_american else -1
        for order, track in self._tracks.items():
            track.add(day_number(stamp.numbers, order))

    @property
    def order(self) -> DateOrder:
        """Return the order with the fewest impossible dates, then the fewest steps backwards, then
        the shortest span.

        Ties resolve to day first, as in most of the world, unless the dates look American.
        """
        preferred = DATE_ORDERS
        if self._american > 0:
            preferred = ("mdy", "dmy", "ymd")
        return min(preferred, key=lambda order: self._tracks[order].faults)


@dataclass(slots=True)
class _OrderFaults:
    impossible: int = 0
    back: int = 0
    last: int = 0
    first: int = 0
    latest: int = 0

    def add(self, day: int | None) -> None:
        if day is None:
            self.impossible += 1
            return
        self.back += day < self.last
        self.last = day
        self.first = min(self.first or day, day)
        self.latest = max(self.latest, day)

    @property
    def faults(self) -> tuple[int, int, int]:
        return self.impossible, self.back, self.latest - self.first
