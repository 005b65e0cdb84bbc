"""Compares exchanges and events with Discord's description, and says in words what is wrong with
them.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jsonschema_rs

from sandbox.traffic_log import GatewayEvent, HttpExchange
from tests.openapi.description import Json
from tests.openapi.schemas import SCHEMAS, Schemas

REFUSED_UNREAD = (400, 401)
"""A test may send what is wrong to see it refused; then only the answer is compared."""

NOT_THERE = 404
LONGEST_QUOTE = 200

MEANT = {("POST", "/webhooks/{webhook_id}/{webhook_token}"): "IncomingWebhookRequestPartial"}
"""Request bodies with several schemas that nothing tells apart: a mistake under one would fit the
other.
"""

EVENTS: dict[str, dict[str, str]] = {
    "GUILD_CREATE": {
        "channels": "GuildChannelResponse",
        "threads": "ThreadResponse",
        "members": "GuildMemberResponse",
        "roles": "GuildRoleResponse",
    },
    "GUILD_MEMBERS_CHUNK": {"members": "GuildMemberResponse"},
    "GUILD_MEMBER_UPDATE": {"": "GuildMemberResponse"},
    "GUILD_ROLE_UPDATE": {"role": "GuildRoleResponse"},
    "CHANNEL_UPDATE": {"": "GuildChannelResponse"},
    "THREAD_CREATE": {"": "ThreadResponse"},
    "THREAD_UPDATE": {"": "ThreadResponse"},
    "MESSAGE_CREATE": {"": "MessageResponse"},
    "MESSAGE_UPDATE": {"": "MessageResponse"},
    "INTERACTION_CREATE": {
        "message": "MessageResponse",
        "user": "UserResponse",
        "member": "GuildMemberResponse",
        "data.resolved.users": "UserResponse",
        "data.resolved.roles": "GuildRoleResponse",
        "data.resolved.messages": "MessageResponse",
        "data.resolved.attachments": "MessageAttachmentResponse",
    },
}
"""Objects in the gateway's events that the HTTP API describes: event → where ("" for all of it) →
schema.
"""

EVENT_ONLY = {
    "MessageResponse": ("guild_id", "member"),
    "GuildMemberResponse": ("guild_id", "permissions"),
    "ThreadResponse": ("newly_created",),
}
"""Fields that such an object has in events alone."""


@dataclass(frozen=True)
class Operation:
    """What the description says about a method of a path."""

    method: str
    template: str
    said: Json

    @property
    def kind(self) -> str:
        """As people write it: GET /users/@me."""
        return f"{self.method} {self.template}"


class Side:
    """One direction: the schemas of all that is sent, or of all that is answered, compiled as they
    are needed.
    """

    def __init__(self, components: dict[str, Json], name: str, *, sent: bool) -> None:
        self._schemas = Schemas(components, sent=sent)
        self._address = f"urn:{name}"
        document = {"components": {"schemas": self._schemas.components}}
        self._registry = jsonschema_rs.Registry([(self._address, document)])
        self._compiled: dict[str, jsonschema_rs.Draft202012Validator] = {}

    def problems(self, schema: Json, value: object, where: str) -> list[str]:
        """What is wrong with a value, in words; nothing if it is as described."""
        key = json.dumps(schema)
        if key not in self._compiled:
            absolute = json.dumps(self._schemas.made(schema)).replace(
                f'"{SCHEMAS}', f'"{self._address}{SCHEMAS}'
            )
            self._compiled[key] = jsonschema_rs.Draft202012Validator(
                json.loads(absolute), registry=self._registry, validate_formats=True, offline=True
            )
        validator = self._compiled[key]
        if validator.is_valid(value):
            return []
        found = [said for error in validator.iter_errors(value) for said in _said(error)]
        return [f"{_path(where, error)}: {words}" for error, words in found]


def _path(where: str, error: jsonschema_rs.ValidationError) -> str:
    return where + "".join(
        f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.instance_path
    )


def _said(
    error: jsonschema_rs.ValidationError,
) -> Iterator[tuple[jsonschema_rs.ValidationError, str]]:
    """The errors that help: of a union those of the branch that was most likely meant."""
    match error.kind:
        case jsonschema_rs.ValidationErrorKind.AnyOf(context=branches) if branches:
            depth = len(error.instance_path)
            for one in min(branches, key=lambda branch: _distance(branch, depth)):
                yield from _said(one)
        case jsonschema_rs.ValidationErrorKind.AdditionalProperties(unexpected=names):
            yield error, f"Discord describes no field {', '.join(map(repr, names))} here"
        case _:
            yield (
                error,
                error.message
                if len(error.message) <= LONGEST_QUOTE
                else f"…{error.message[-LONGEST_QUOTE:]}",
            )


def _distance(branch: list[jsonschema_rs.ValidationError], depth: int) -> tuple[bool, bool, int]:
    """How far a branch is from being meant: for a value of another kind, with another `type`, or
    just many errors.
    """
    other_kind = any(
        error.kind.name == "type" and len(error.instance_path) == depth for error in branch
    )
    other_type = any(
        error.kind.name in ("const", "enum") and error.instance_path[depth:] == ["type"]
        for error in branch
    )
    return other_kind, other_type, len(branch)


class Checker:
    """All of the description, ready to compare with."""

    def __init__(self, description: Json) -> None:
        self._description = description
        components = description["components"]["schemas"]
        self._sent, self._answered = (
            Side(components, "sent", sent=True),
            Side(components, "answered", sent=False),
        )
        self.operations = [
            Operation(
                method.upper(), template, {**said, "parameters": self._parameters(path, said)}
            )
            for template, path in description["paths"].items()
            for method, said in path.items()
            if method != "parameters"
        ]

    def _parameters(self, path: Json, said: Json) -> list[Json]:
        return [
            self._resolved(one)
            for one in (*path.get("parameters", ()), *said.get("parameters", ()))
        ]

    def _resolved(self, node: Json) -> Json:
        while "$ref" in node:
            found = self._description
            for part in node["$ref"].removeprefix("#/").split("/"):
                found = found[part]
            node = found
        return node

    def operation(self, method: str, path: str) -> Operation | None:
        """What the description says about a request; a literal path is meant before one with names
        in it.
        """
        asked = path.split("/")
        fitting = [
            one
            for one in self.operations
            if one.method == method and _fits(one.template.split("/"), asked)
        ]
        return min(fitting, key=lambda one: one.template.count("{"), default=None)

    def problems(self, exchange: HttpExchange) -> list[str]:
        """What is wrong with an exchange, in words."""
        found = self.operation(exchange.method, exchange.path)
        if found is None:
            undescribed = f"{exchange.method} {exchange.path}: Discord describes no such request"
            return [] if exchange.status == NOT_THERE else [undescribed]
        problems = [] if exchange.status in REFUSED_UNREAD else [*self._in_request(found, exchange)]
        problems += self._in_answer(found, exchange)
        return [f"{found.kind} → {exchange.status}: {problem}" for problem in problems]

    def _in_request(self, found: Operation, exchange: HttpExchange) -> Iterator[str]:
        in_path = dict(zip(found.template.split("/"), exchange.path.split("/"), strict=True))
        given = {
            "query": dict(exchange.query),
            "path": {k.strip("{}"): v for k, v in in_path.items()},
        }
        for parameter in found.said["parameters"]:
            place = parameter["in"]
            name = parameter["name"]
            text = given.get(place, {}).pop(name, None)
            if text is not None:
                yield from self._in_parameter(parameter["schema"], text, f"{place} {name}")
            elif parameter.get("required"):
                yield f"{place} {name} is missing"
        yield from (f"query {name}: Discord describes no such parameter" for name in given["query"])
        yield from self._in_body(found, exchange)

    def _in_parameter(self, schema: Json, text: str, where: str) -> list[str]:
        # All that is in an address is text; one of its readings must fit.
        readings: list[object] = [text]
        if text.isdecimal():
            readings.append(int(text))
        if text.lower() in ("0", "1", "true", "false"):
            readings.append(text.lower() in ("1", "true"))
        tries = [self._sent.problems(schema, reading, where) for reading in readings]
        return min(tries, key=len)

    def _in_body(self, found: Operation, exchange: HttpExchange) -> list[str]:
        content = self._resolved(found.said.get("requestBody", {})).get("content", {})
        if exchange.body is None:
            return []
        if not content:
            return ["a body, where Discord describes none"]
        # With files the same JSON comes as one part of a form.
        schema = content.get("application/json", next(iter(content.values())))["schema"]
        if meant := MEANT.get((found.method, found.template)):
            schema = {"$ref": SCHEMAS + meant}
        return self._sent.problems(schema, exchange.body, "body")

    def _in_answer(self, found: Operation, exchange: HttpExchange) -> list[str]:
        said = found.said["responses"]
        status = str(exchange.status)
        described = said.get(status, said.get(f"{status[0]}XX"))
        if described is None:
            return [f"Discord describes no such status, only {', '.join(said)}"]
        content = self._resolved(described).get("content", {})
        if not content:
            return (
                []
                if exchange.answer is None
                else ["an answer with a body, where Discord describes none"]
            )
        return self._answered.problems(
            content["application/json"]["schema"], exchange.answer, "answer"
        )

    def problems_in(self, event: GatewayEvent) -> list[str]:
        """What is wrong with the objects in an event of the gateway that the HTTP API describes."""
        return [
            problem
            for where, name, value in objects_in(event)
            for problem in self._answered.problems(
                {"$ref": SCHEMAS + name}, value, f"{event.name}.{where}".rstrip(".")
            )
        ]


def _fits(template: list[str], asked: list[str]) -> bool:
    return len(template) == len(asked) and all(
        t[:1] == "{" or t == a for t, a in zip(template, asked, strict=True)
    )


def objects_in(event: GatewayEvent) -> Iterator[tuple[str, str, Json]]:
    """The described objects of an event: where they stand, the name of their schema, and they
    themselves.
    """
    for where, schema in EVENTS.get(event.name, {}).items():
        found: Any = event.data
        for step in where.split(".") if where else ():
            found = (found or {}).get(step)
        for one in _each(found):
            only_here = EVENT_ONLY.get(schema, ())
            yield (
                where,
                schema,
                {name: value for name, value in one.items() if name not in only_here},
            )


def _each(found: Any) -> list[Json]:
    """One object, a list of them, or a map of them by id."""
    if isinstance(found, dict) and all(key.isdecimal() for key in found):
        return list(found.values())
    return found if isinstance(found, list) else [found] if found else []
