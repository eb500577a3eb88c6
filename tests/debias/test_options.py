"""Flags are fields: what a dataclass says once is what the command line shows and takes."""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import click
import pytest
from click.testing import CliRunner, Result

from debias.commands.preview import PreviewSettings
from debias.objective_settings import ObjectiveSettings
from debias.options import dry_run_option, options, picked, print_settings
from debias.pipelines.stylized_set.plan import BuildSettings
from debias.style_transfer.fit import FitSettings


@dataclass(frozen=True)
class Example:
    """One field of each kind."""

    where: Annotated[Path, "folder to look in"]
    step_size: Annotated[float, "length of a step"] = 0.5
    count: Annotated[int | None, "how many; all without it"] = None
    mode: Annotated[Literal["fast", "slow"], "how to go"] = "fast"
    flip: Annotated[bool, "mirror some"] = True
    strict: Annotated[bool, "refuse"] = False
    clamp: Annotated[bool | None, "cut off"] = None
    part: int = 7  # not annotated: no flag

    def __post_init__(self) -> None:
        if self.step_size < 0:
            raise ValueError("--step-size must be 0 or more")


@click.command()
@click.option("--other", default="x")
@options(Example)
@dry_run_option
def command(other: str, dry_run: bool, **values: Any) -> None:
    example = picked(Example, values | {"other": other})
    if dry_run:
        return print_settings(asdict(example))
    assert isinstance(example.where, Path)
    click.echo(example)
    return None


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(command, arguments)


def test_defaults_are_the_fields() -> None:
    assert invoke("--where", "a").output.strip() == str(Example(Path("a")))


def test_every_flag_arrives_in_its_field_with_its_type() -> None:
    found = invoke("--where", "b", "--step-size", "2", "--count", "3", "--mode", "slow", "--no-flip", "--strict")
    assert found.output.strip() == str(Example(Path("b"), 2.0, 3, "slow", flip=False, strict=True))
    for flag, value in (("--clamp", True), ("--no-clamp", False)):
        assert invoke("--where", "b", flag).output.strip() == str(Example(Path("b"), clamp=value))


def test_help_shows_name_type_text_and_default_in_the_order_of_the_fields() -> None:
    text = " ".join(invoke("--help").output.split())
    for part in (
        "--where PATH Folder to look in. [required]",
        "--step-size FLOAT Length of a step. [default: 0.5]",
        "--count INTEGER How many; all without it. ",
        "--mode [fast|slow] How to go. [default: fast]",
        "--flip / --no-flip Mirror some. [default: flip]",
        "--strict Refuse. --clamp / --no-clamp Cut off. -",
    ):
        assert part in text
    places = [text.index(f"--{name} ") for name in ("where", "step-size", "count", "mode", "flip", "strict")]
    assert places == sorted(places)
    assert "part" not in text


@pytest.mark.parametrize("wrong", [("--mode", "sideways"), ("--count", "many"), ("--part", "1"), ("--step-size", "x")])
def test_what_does_not_fit_the_type_is_refused_by_the_flags_name(wrong: tuple[str, str]) -> None:
    found = invoke("--where", "a", *wrong)
    assert found.exit_code == 2
    assert wrong[0] in found.output.splitlines()[-1]


def test_a_dry_run_prints_json() -> None:
    values = json.loads(invoke("--where", "a", "-n").output)
    assert values == asdict(Example(Path("a"))) | {"where": "a"}


@pytest.mark.parametrize("settings", [BuildSettings, PreviewSettings, FitSettings, ObjectiveSettings])
def test_every_field_of_the_products_settings_is_a_flag_with_help(settings: type) -> None:
    @click.command()
    @options(settings)
    def product(**values: Any) -> None: ...

    shown = {option.name: option for option in product.params if isinstance(option, click.Option)}
    assert list(shown) == [field.name for field in fields(settings)]
    for field in fields(settings):
        assert shown[field.name].default == field.default
        assert shown[field.name].help
