"""Forms of rights, columns, offers and builds: from fields to requests, and back."""

from collections.abc import Mapping
from datetime import datetime

from bot.data.build_request import DatasetBuildBody
from bot.data.offers import ColumnMapBody, OfferBody
from bot.data.rights import LICENSED_RIGHT
from bot.platform.web_kit.validation import parse_body
from bot.services import Services
from bot.training.dataset_catalog import DatasetPlace
from personas.home.rights import RightsStatement


def parse_map_form(form: Mapping[str, str]) -> tuple[str, ...]:
    """Parse the pairs of a form, one a line. Raises `Problem`."""
    return parse_body(ColumnMapBody, {"map": _split(form.get("map", ""), "\n")}, is_form=True).map


def parse_offer_form(form: Mapping[str, str]) -> OfferBody:
    """Parse the form by which a data set is offered to moderators. Raises `Problem` naming the
    wrong fields.
    """
    texts = {name: form.get(name, "").strip() for name in OfferBody.model_fields}
    if texts["right"] == LICENSED_RIGHT:
        texts["right"] = f"{LICENSED_RIGHT}:{form.get('licence', '').strip()}"
    lists = {
        "persona_names": _split(texts["persona_names"], ","),
        "map": _split(texts["map"], "\n"),
    }
    return parse_body(OfferBody, {**texts, **lists}, is_form=True)


def parse_build_form(form: Mapping[str, str], chosen: list[str]) -> DatasetBuildBody:
    """Parse the build form; `chosen` are the ids of its sources. Raises `Problem` naming the wrong
    fields.
    """
    texts = {name: form.get(name, "").strip() for name in DatasetBuildBody.model_fields}
    body: dict[str, object] = {name: text for name, text in texts.items() if text}
    body["name"] = texts["name"]
    body["two_stage"] = texts["two_stage"] == "yes"
    body["names"] = _split(texts["names"], ",")
    body["languages"] = _split(texts["languages"], ",")
    body["sources"] = [
        {"source": id, "limit": form.get(f"limit {id}", "").strip() or None} for id in chosen
    ]
    return parse_body(DatasetBuildBody, body, is_form=True)


def build_fields(body: DatasetBuildBody) -> dict[str, str]:
    """A stored request as form fields."""
    values = body.model_dump(exclude={"sources"}, exclude_none=True)
    values |= {"names": ", ".join(body.names), "languages": ", ".join(body.languages)}
    values["two_stage"] = "yes" if body.two_stage else ""
    values |= {f"limit {selection.source}": selection.limit or "" for selection in body.sources}
    return {name: str(value) for name, value in values.items()}


def statement_fields(stated: RightsStatement | None) -> dict[str, str]:
    """A stated right as form fields."""
    if stated is None:
        today = datetime.now().astimezone().date().isoformat()
        return {"right": "", "licence": "", "stated_by": "", "stated_on": today, "why": ""}
    kind, _, licence = stated.right.partition(":")
    return {"right": kind, "licence": licence, "stated_by": stated.stated_by, "stated_on": stated.stated_on,
            "why": stated.why}  # fmt: skip


def offer_fields(services: Services, place: DatasetPlace, name: str) -> dict[str, str]:
    """The entry of a data set in the catalogue as form fields; `name` is proposed where there is
    none.
    """
    entry = services.catalogue.entry_at(place)
    if entry is None:
        return {"name": name, "language": "", "format": "", "persona_names": "", "map": ""}
    return {
        "name": entry.name,
        "language": entry.language,
        "format": entry.format or "",
        "persona_names": ", ".join(entry.persona_names),
        "map": "\n".join(entry.mapping),
    }


def _split(text: str, separator: str) -> list[str]:
    return [part.strip() for part in text.split(separator) if part.strip()]
