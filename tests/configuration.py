"""The tables of docs/configuration.md, of the settings classes and of the commands that load them.

What a setting does is told by the docstring below its field, what it may be by its type and bounds. Which commands read
it is found by going from each command's function through the functions of `commands/` that it names: they alone load
settings.
"""

import ast
import inspect
import re
import types
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import HttpUrl, SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

from consumer import settings as of_consumer
from consumer.commands import judged_settings
from consumer.program import KNOWN
from publisher import settings as of_publisher
from tests.commands_table import commands

GROUPS: dict[str, tuple[type[BaseSettings], ...]] = {
    "PostgreSQL": (of_consumer.DatabaseSettings,),
    "RabbitMQ": (of_publisher.BrokerSettings,),
    "RabbitMQ's users": (of_publisher.BrokerUsersSettings,),
    "The bucket": (of_publisher.BucketSettings,),
    "TLS": (of_publisher.TlsSettings,),
    "Feeds": (of_consumer.FeedsSettings,),
    "Files": (of_consumer.ApplySettings,),
    "What a consumer takes in hand": (of_publisher.WorkSettings,),
    "When everything fails": (of_consumer.FailureSettings,),
    "History": (of_consumer.HistorySettings,),
    "The archive": (of_consumer.ArchiveSettings,),
    "The geocoder": (of_consumer.GeocoderSettings,),
    "Its limits": (of_consumer.GeocoderLimits,),
    "The gazetteer": (of_consumer.GazetteerSettings,),
    "The webhook receiver": (of_publisher.WebhookSettings,),
    "The carrier from SQS": (of_publisher.SqsSettings,),
    "The read API": (of_consumer.ApiSettings,),
    "Signs of life": (of_consumer.HeartbeatSettings,),
    "Verdicts": (of_consumer.VerdictSettings,),
    "Alerts": (of_consumer.AlertSettings,),
    "The log": (of_publisher.LogSettings,),
    "Traces": (of_publisher.TracesSettings,),
}
CHOICES: tuple[type[BaseSettings], ...] = (of_consumer.DatabaseChoice, of_consumer.GeocoderChoice)
"""Whether a setting is there at all: who asks that does without it."""
_OF_ALL = {of_publisher.TlsSettings: "Read by all that speaks TLS.", of_publisher.LogSettings: "Read by every command."}
_LEFT_OUT = {"doctor", "demo"}
"""The one looks at all of them, the other makes its own."""
_WORDS = re.compile(r"\bdocs/([\w-]+\.md)")


def tables() -> str:
    return "\n".join(f"### {title}\n\n{_group(kinds[0])}" for title, kinds in GROUPS.items())


def _group(kind: type[BaseSettings]) -> str:
    told = _linked(inspect.cleandoc(kind.__doc__ or "").replace("\n", " "))
    fields = {name: field for name, field in kind.model_fields.items() if name in kind.__annotations__}
    rows = [
        f"| `{field.validation_alias}` | {_may_be(field)} | {_default(field)} | {_linked(_docstrings(kind)[name])} |\n"
        for name, field in fields.items()
    ]
    head = "| setting | may be | default | |\n| --- | --- | --- | --- |\n"
    return f"{told} {_OF_ALL.get(kind) or _readers_of(kind)}\n\n{head}{''.join(rows)}"


def _linked(text: str) -> str:
    return _WORDS.sub(r"[\1](\1)", text)


@cache
def _docstrings(kind: type[BaseSettings]) -> dict[str, str]:
    """What stands below each field."""
    (made,) = ast.parse(inspect.getsource(kind)).body
    assert isinstance(made, ast.ClassDef)
    found = {}
    for statement, below in zip(made.body, made.body[1:], strict=False):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            assert isinstance(below, ast.Expr), f"{kind.__name__}.{statement.target.id} has no docstring"
            found[statement.target.id] = " ".join(str(ast.literal_eval(below.value)).split())
    return found


def _may_be(field: FieldInfo) -> str:
    given = [one for one in get_args(field.annotation) if one is not types.NoneType]
    is_optional = types.NoneType in get_args(field.annotation)
    kind = given[0] if is_optional else field.annotation
    if get_origin(kind) is Literal:
        return ", ".join(f"`{word}`" for word in get_args(kind))
    if get_origin(kind) is tuple:
        return "a list"
    if kind in {int, float}:
        return f"{'a whole number' if kind is int else 'a number'}, {_bounds(field)}"
    if kind is SecretStr:
        return "a URL" if str(field.validation_alias).endswith("_URL") else "a secret"
    return {HttpUrl: "a URL", Path: "a path"}.get(kind, "text") if isinstance(kind, type) else "text"


def _bounds(field: FieldInfo) -> str:
    found = {name: getattr(one, name) for one in field.metadata for name in ("ge", "gt", "le") if hasattr(one, name)}
    least = f"{found['ge']:,}" if "ge" in found else f"above {found['gt']:,}"
    return f"{least} to {found['le']:,}" if "le" in found else f"{least} or more"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default()
    if value is None or value == ():
        return "none"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def _readers_of(kind: type[BaseSettings]) -> str:
    always, where_set = set(), set()
    for command, loaded in readers().items():
        found = {unguarded for one, unguarded in loaded.items() if issubclass(one, kind)}
        if True in found:
            always.add(command)
        elif found:
            where_set.add(command)
    told = [f"Read by {_listed(always)}"] if always else []
    if where_set:
        told.append(f"{'by' if always else 'Read by'} {_listed(where_set)} where it is set")
    return "; ".join(told) + "."


def _listed(names: set[str]) -> str:
    """With one line for all commands of a group that has them all."""
    of_group: dict[str, set[str]] = {}
    for command in commands():
        group, _, rest = command.name.partition(" ")
        if rest:
            of_group.setdefault(group, set()).add(command.name)
    whole = {group for group, all_of_it in of_group.items() if all_of_it <= names}
    left = {name for name in names if name.partition(" ")[0] not in whole}
    return ", ".join(f"`{name}`" for name in sorted(left | whole))


@cache
def readers() -> dict[str, dict[type[BaseSettings], bool]]:
    """What each command loads, and whether it cannot do without."""
    found = {}
    for command in commands():
        if command.name not in _LEFT_OUT:
            found[command.name] = _loaded(command.function)
    return found


def _loaded(function: Callable[..., Any]) -> dict[type[BaseSettings], bool]:
    found: dict[type[BaseSettings], bool] = {}
    for kind, guards in _reached(function, frozenset(), set()):
        is_needed = not guards & {field.validation_alias for field in kind.model_fields.values()}
        found[kind] = found.get(kind, False) or is_needed
    return found


_Guards = frozenset[Any]


def _reached(
    function: Callable[..., Any], guards: _Guards, seen: set[tuple[Any, _Guards]]
) -> Iterator[tuple[type[BaseSettings], _Guards]]:
    """Each group of settings that the function, or one that it calls, names; and the choices on the way there."""
    function = inspect.unwrap(function)
    if not isinstance(function, types.FunctionType) or (function, guards) in seen:
        return
    names = set(_names(function.__code__))
    named = [function.__globals__[name] for name in names & set(function.__globals__)]
    guards |= {field.validation_alias for one in named if one in CHOICES for field in one.model_fields.values()}
    seen.add((function, guards))
    if "obj" in names:  # of the context: what the program tells its commands
        named += [getattr(KNOWN, name) for name in names & set(KNOWN.__dataclass_fields__)]
    for one in named:
        for kind in one if isinstance(one, tuple) else (one,):
            if isinstance(kind, type) and issubclass(kind, BaseSettings) and kind not in CHOICES:
                yield kind, guards
        if isinstance(one, types.FunctionType) and ".commands." in one.__module__:
            yield from _reached(one, guards, seen)


def _names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


def all_settings() -> dict[str, FieldInfo]:
    """Each by its name, as `doctor` knows them too."""
    kinds = (*judged_settings.NEEDED, *judged_settings.WHERE_WANTED)
    return {str(field.validation_alias): field for kind in kinds for field in kind.model_fields.values()}
