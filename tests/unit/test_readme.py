"""What the README says is so: flags, exit codes, places to edit."""

import ast
import importlib
import re
import shlex
from pathlib import Path

import click
import pytest

from tests.conftest import ROOT
from tuner import errors, search
from tuner.cli import COMMANDS
from tuner.flags import SETTINGS
from tuner.run import run

README = (ROOT / "README.md").read_text()


def section(title: str) -> str:
    return README.split(f"\n## {title}\n")[1].split("\n## ")[0]


def command_of(name: str) -> click.Command:
    command = getattr(importlib.import_module(f"tuner.{name}"), name)
    assert isinstance(command, click.Command)
    return command


@pytest.mark.parametrize("name", COMMANDS)
def test_the_flags_of_each_command_are_exactly_the_programs(name: str) -> None:
    table = section("The commands").split(f"\n### {name}\n")[1].split("\n### ")[0]
    said = set(re.findall(r"(?<=`)--?[a-z][a-z-]*", table))
    options = [it for it in command_of(name).params if isinstance(it, click.Option)]
    assert said == {flag for option in options for flag in option.opts}


def test_the_names_of_samplers_and_pruners_are_the_registries() -> None:
    for kind, registry in (("sampler", search.SAMPLERS), ("pruner", search.PRUNERS)):
        row = re.search(rf"\| `--{kind} NAME` \| ([^|]*)\|", README)
        assert row is not None
        said = re.sub(r"\([^)]*\)", "", row[1])
        assert [name.strip() for name in said.split(",")] == list(registry)
        option = next(option for option in run.params if option.name == kind)
        assert isinstance(option, click.Option)
        assert option.help is not None
        assert re.findall(r"[a-z0-9]+", option.help.split(".")[0].replace(" or ", ", ")) == list(
            registry
        )
    for default in (search.DEFAULT_SAMPLER, search.DEFAULT_PRUNER):
        assert f"[default: {default}]" in run.get_help(click.Context(run))


def test_the_exit_codes_are_the_error_trees() -> None:
    said = {
        int(code) for code in re.findall(r"^\| (\d+) \|", section("The commands"), re.MULTILINE)
    }
    real = {error.exit_code for error in errors.TunerError.__subclasses__()}
    assert said == real | {0, errors.TunerError.exit_code}


def test_every_place_to_edit_exists() -> None:
    places = section("To change something")
    rows = re.findall(r"`(tuner/[\w/]+\.py)`: ((?:`\w+`(?:, )?)+)", places)
    assert len(rows) > 10
    for path, symbols in rows:
        defined = top_level_names(ROOT / path)
        for symbol in re.findall(r"`(\w+)`", symbols):
            assert symbol in defined, f"{path} has no {symbol}"


def top_level_names(path: Path) -> set[str]:
    """What a module defines, without importing it: some import TensorFlow."""
    names = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                names |= {name.id for name in ast.walk(target) if isinstance(name, ast.Name)}
    return names


@pytest.mark.parametrize("path", re.findall(r"\]\(([^)h][^)]*)\)", README))
def test_every_link_leads_somewhere(path: str) -> None:
    if path.startswith("#"):
        titles = re.findall(r"^#+ (.+)$", README, re.MULTILINE)
        anchors = {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}
        assert path[1:] in anchors
    else:
        assert (ROOT / path).exists()


def test_every_command_is_a_module_of_its_name() -> None:
    for name in COMMANDS:
        assert command_of(name).name == name


_COMMAND_LINE = re.compile(
    r"(?:^|`|&& |\$ )((?:python -m tuner\.|tuner )\w+ [^`\n]*)", re.MULTILINE
)
COMMAND_LINES = sorted(
    {line.strip() for line in _COMMAND_LINE.findall(README) if "..." not in line}
)


@pytest.mark.parametrize("line", COMMAND_LINES)
def test_every_command_line_is_understood(line: str) -> None:
    words = shlex.split(line.partition("#")[0])
    name, *arguments = words[1:] if words[0] == "tuner" else [words[2][6:], *words[3:]]
    with command_of(name).make_context(name, arguments):
        pass


def test_there_are_command_lines() -> None:
    assert len(COMMAND_LINES) >= 8


def test_every_variable_and_key_is_a_setting() -> None:
    table = section("The commands").split("### Settings")[1].split("\n### ")[0]
    by_variable = {setting.environment: setting for setting in SETTINGS.values()}
    for flag, variable, key in re.findall(
        r"\| `--([\w-]+)[^|]*\| `(\w+)[^|]*\| `([\w-]+) =", table
    ):
        assert by_variable[variable].name == flag == key


def spoken() -> str:
    """All texts in our sources, with what is filled in left out and joined as they are printed."""
    texts = []
    for path in (ROOT / "tuner").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                texts.append("".join(
                    str(it.value) if isinstance(it, ast.Constant) else "\0" for it in node.values
                ))  # fmt: skip
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
    return "\n".join(texts)


def test_what_the_help_for_errors_quotes_is_what_the_program_says() -> None:
    rows = re.findall(r"^\| (`[^|]*) \|", section("When something goes wrong"), re.MULTILINE)
    quotes = [quote for row in rows for quote in re.findall(r"`([^`]*)`", row)]
    assert len(quotes) > 15
    said = spoken()
    of_databases = {"Connection refused", "Access denied", "database or disk is full"}
    for quote in quotes:
        pieces = re.split(r"\.\.\.|'[^']*'|\b\d+\b|TUNER_WORKERS|\(killed", quote)
        longest = max(pieces, key=len).strip(" :,;")
        assert longest in of_databases or longest in said, longest


def test_the_layout_names_every_room_once() -> None:
    table = section("How the house is laid out").split("|---|---|")[1]
    named = re.findall(r"`(\w+)`", table.split("\n\n")[0])
    rooms = {
        path.stem for path in (ROOT / "tuner").iterdir() if not path.name.startswith(("_", "py"))
    }
    assert sorted(named) == sorted(rooms)
