"""What the README says is so: flags, exit codes, places to edit."""

import ast
import importlib
import re
from pathlib import Path

import click
import pytest

from tests.conftest import ROOT
from tuner import errors, search
from tuner.cli import COMMANDS
from tuner.run import run

README = (ROOT / "README.md").read_text()


def section(title: str) -> str:
    return README.split(f"\n## {title}\n")[1].split("\n## ")[0]


def test_the_commands_flags_are_exactly_the_programs() -> None:
    table = section("The command").split("| exit code")[0]
    said = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", table)) - {"-m"}
    real = {
        name for option in run.params for name in option.opts if isinstance(option, click.Option)
    }
    assert said == real


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
    said = {int(code) for code in re.findall(r"^\| (\d+) \|", section("The command"), re.MULTILINE)}
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
    assert (ROOT / path).exists()


def test_every_command_is_a_module_of_its_name() -> None:
    for name in COMMANDS:
        assert isinstance(getattr(importlib.import_module(f"tuner.{name}"), name), click.Command)
