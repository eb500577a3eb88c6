"""Flags are fields: each annotated field of a settings dataclass is a click option.

Name, type, default and help stand once, at the field: `lr: Annotated[float, "learning rate"] = 0.1` is `--lr FLOAT`,
"learning rate [default: 0.1]".
"""

import dataclasses
import json
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])
S = TypeVar("S")


def options(settings: type) -> Callable[[F], F]:
    """Give a command an option for every annotated field of the dataclass `settings`."""

    def decorate(command: F) -> F:
        hints = typing.get_type_hints(settings, include_extras=True)
        for field in reversed(dataclasses.fields(settings)):
            if typing.get_origin(hints[field.name]) is typing.Annotated:
                kind, text = typing.get_args(hints[field.name])[:2]
                command = _option(field, kind, text)(command)
        return command

    return decorate


def picked(settings: type[S], values: Mapping[str, Any]) -> S:
    """Build `settings` from a command's keyword arguments; names of no field are left alone."""
    names = {field.name for field in dataclasses.fields(settings)}  # type: ignore[arg-type]
    return settings(**{name: value for name, value in values.items() if name in names})


dry_run_option = click.option("-n", "--dry-run", is_flag=True, help="Print the resolved settings and stop.")


def print_settings(values: Mapping[str, Any]) -> None:
    """Print settings as JSON, the form in which they are recorded too."""
    click.echo(json.dumps(values, indent=2, default=str))


def check_device(device: str) -> None:
    """Raise ValueError for a device that this machine lacks."""
    import torch  # not at the top: `debias --help` answers without it

    kind, _, number = device.partition(":")
    if kind not in ("cpu", "cuda") or (number and not number.isdigit()):
        raise ValueError(f"--device must be cpu, cuda or cuda:N, got {device!r}")
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        raise ValueError(f"--device {device}: this machine has {torch.cuda.device_count()} CUDA devices; use cpu")


def _option(field: "dataclasses.Field[Any]", kind: Any, text: str) -> Callable[[Any], Any]:
    flag = "--" + field.name.replace("_", "-")
    required = field.default is dataclasses.MISSING
    common: dict[str, Any] = {"help": text[0].upper() + text[1:] + ".", "required": required}
    if not required:
        common |= {
            "default": field.default,
            "show_default": not (field.default is None or field.default is False or field.default == ""),
        }
    kind = _without_none(kind)
    if kind is bool:
        name = flag if field.default is False else f"{flag}/--no-{flag[2:]}"
        return click.option(name, field.name, is_flag=True, **common)
    return click.option(flag, field.name, type=_click_type(kind), **common)


def _without_none(kind: Any) -> Any:
    """The type of a field of type "int | None": its default alone may be None."""
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        return next(part for part in typing.get_args(kind) if part is not types.NoneType)
    return kind


def _click_type(kind: Any) -> Any:
    return click.Choice(typing.get_args(kind)) if typing.get_origin(kind) is Literal else kind
