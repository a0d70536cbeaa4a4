"""Where a setting's value comes from, and what is said of a wrong one."""

import importlib
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from tuner import cli, command, flags
from tuner.errors import UsageError
from tuner.flags import SETTINGS, Source
from tuner.run import run
from tuner.status import status


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for setting in SETTINGS.values():
        monkeypatch.delenv(setting.environment, raising=False)


def parsed(*arguments: str, of: click.Command = run) -> flags.Given:
    """What a command line gives, without running the command."""
    with of.make_context(of.name, list(arguments)):
        return flags.given()


def said(*arguments: str, of: click.Command = run) -> str:
    """The sentence that a wrong command line gets."""
    try:
        parsed(*arguments, of=of)
    except UsageError as error:
        return str(error)
    except click.ClickException as error:
        return command.sentence(error)
    pytest.fail("nothing was wrong")


NEEDED = ("--study", "s", "--trials", "3")


def test_flag_then_environment_then_file_then_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tuner.toml").write_text(
        'workers = 2\npruner = "median"\nsampler = "qmc"\nquiet = true\ntrial-timeout = 7\n'
        'storage = "sqlite:///file.db"\nformat = "json"\n'
    )
    monkeypatch.setenv("TUNER_PRUNER", "none")
    monkeypatch.setenv("TUNER_SAMPLER", "grid")
    monkeypatch.setenv("OPTUNA_STORAGE", "sqlite:///environment.db")
    found = parsed(*NEEDED, "--sampler", "random")
    expected: dict[str, tuple[Any, Source]] = {
        "sampler": ("random", Source.FLAG),
        "pruner": ("none", Source.ENVIRONMENT),
        "storage": ("sqlite:///environment.db", Source.ENVIRONMENT),
        "workers": (2, Source.FILE),
        "quiet": (True, Source.FILE),
        "trial_timeout": (7.0, Source.FILE),
        "precision": (None, Source.DEFAULT),
        "trials": (3, Source.FLAG),
    }
    for name, value in expected.items():
        assert (found.values[name], found.sources[name]) == value
    assert parsed(of=status).values["format"] == "json"
    assert parsed("--format", "table", of=status).values["format"] == "table"


def test_a_file_from_windows_is_read(tmp_path: Path) -> None:
    (tmp_path / "tuner.toml").write_bytes(b"\xef\xbb\xbfworkers = 2\r\npruner = 'none'\r\n")
    assert parsed(*NEEDED).values["workers"] == 2


def test_a_switch_that_is_no_word_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNER_QUIET", "maybe")
    assert said(*NEEDED) == "TUNER_QUIET is 'maybe'; write true or false."


def test_an_empty_variable_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNER_WORKERS", "")
    monkeypatch.setenv("TUNER_QUIET", "no")
    found = parsed(*NEEDED)
    assert (found.values["workers"], found.sources["workers"]) == (None, Source.DEFAULT)
    assert found.values["quiet"] is False


@pytest.mark.parametrize("name", [name for name in SETTINGS if name != "format"])
def test_every_setting_can_come_from_each_place(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = SETTINGS[name]
    numbers = {"workers", "seed", "max-failures", "timeout", "trial-timeout", "cache-gb",
               "cpus-per-worker", "gpus-per-worker"}  # fmt: skip
    text = "4" if name in numbers else next(iter(setting.choices), "x")
    switch = setting.metavar is None
    key = name.replace("-", "_")
    flag = [f"--{name}"] if switch else [f"--{name}", text]
    value = parsed(*NEEDED, *flag).values[key]
    assert value is not None
    monkeypatch.setenv(setting.environment, "1" if switch else text)
    found = parsed(*NEEDED)
    assert (found.values[key], found.sources[key]) == (value, Source.ENVIRONMENT)
    monkeypatch.delenv(setting.environment)
    plain = "true" if switch else text if name in numbers else f'"{text}"'
    (tmp_path / "tuner.toml").write_text(f"{name} = {plain}\n")
    found = parsed(*NEEDED)
    assert (found.values[key], found.sources[key]) == (value, Source.FILE)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("workers = ", "tuner.toml is no TOML: Invalid value (at end of document); write lines"),
        ("wrokers = 2", "tuner.toml has the key 'wrokers', which is no setting; did you mean 'wor"),
        ("trial_timeout = 2", "which is no setting; did you mean 'trial-timeout'?"),
        ("study = 'mnist'", "tuner.toml has the key 'study', which is no setting"),
        ("workers = 2.5", "workers in tuner.toml is 2.5; give a whole number from 0"),
        ("workers = true", "workers in tuner.toml is True; give a whole number"),
        ("workers = [2]", "workers in tuner.toml is [2]; give a whole number"),
        ("timeout = '9 minutes'", "timeout in tuner.toml is '9 minutes'; give a number of seconds"),
        ("timeout = nan", "timeout in tuner.toml is nan; give a number of seconds above 0."),
        ("pruner = 3", "pruner in tuner.toml is 3; give a text."),
        ("precision = 'half'", "precision in tuner.toml is 'half'; choose one of: auto, float32"),
        ("quiet = 'maybe'", "quiet in tuner.toml is 'maybe'; write true or false."),
        ("[run]\nworkers = 2", "tuner.toml has the key 'run', which is no setting"),
    ],
)
def test_a_wrong_file_gets_a_sentence_and_help_does_not_mind(
    text: str, says: str, tmp_path: Path
) -> None:
    (tmp_path / "tuner.toml").write_text(text)
    assert says in said(*NEEDED)
    assert CliRunner().invoke(run, ["--help"]).exit_code == 0


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "tuner.toml").write_bytes(b"\xff\xfe")
    assert "tuner.toml is no TOML" in said(*NEEDED)
    (tmp_path / "tuner.toml").unlink()
    (tmp_path / "tuner.toml").mkdir()
    assert "tuner.toml cannot be read: Is a directory" in said(*NEEDED)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "--study is missing; add --study NAME|PATH."),
        (("--study", "s"), "--trials is missing; add --trials N."),
        (("--study", ""), "--study is ''; give a text."),
        (("--study", "s", "--trials", "0"), "--trials is '0'; give a whole number from 1."),
        (("--study", "s", "--n-trials", "1e3"), "--trials is '1e3'; give a whole number from 1."),
        ((*NEEDED, "--trials", str(2**40)), "give a whole number up to 2,147,483,647."),
        ((*NEEDED, "--workers", "-1"), "--workers is '-1'; give a whole number from 0 (0 runs"),
        ((*NEEDED, "--timeout", "nan"), "--timeout is 'nan'; give a number of seconds above 0."),
        (
            (*NEEDED, "--timeout", "inf"),
            "--timeout is 'inf'; give a number of seconds up to 1,000,000,000.",
        ),
        ((*NEEDED, "--cache-gb", "-1"), "is '-1'; give a number of gigabytes from 0 on."),
        ((*NEEDED, "--precision", "float16"), "is 'float16'; did you mean 'bfloat16'?"),
        ((*NEEDED, "--max-failures", "x"), "--max-failures is 'x'; give a whole number from 0."),
        ((*NEEDED, "--seed"), "--seed needs a value; add --seed S."),
        ((*NEEDED, "--quiet=1"), "Option '--quiet' does not take a value; see"),
        ((*NEEDED, "extra"), "Got unexpected extra argument (extra); see run --help."),
        ((*NEEDED, "--trails", "3"), "There is no option --trails; did you mean --trials?"),
        ((*NEEDED, "--xyz"), "There is no option --xyz; see run --help."),
    ],
)
def test_a_wrong_command_line_gets_a_sentence(arguments: tuple[str, ...], says: str) -> None:
    assert says in said(*arguments)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["rnu"], "There is no command 'rnu'; did you mean 'run'?"),
        (["control", "pasue", "--study", "x"], "The argument is 'pasue'; did you mean 'pause'?"),
        (["control", "--study", "x"], "The command needs pause|resume|stop."),
        (["status", "--format", "jsn"], "--format is 'jsn'; did you mean 'json'?"),
        (["completion", "tcsh"], "The argument is 'tcsh'; choose one of: bash, zsh."),
        (["worker", "--workers", "0"], "--workers is '0'; give a whole number from 1."),
    ],
)
def test_every_command_answers_so(arguments: list[str], says: str) -> None:
    with pytest.raises(click.ClickException) as caught:
        cli.tuner.main(arguments, prog_name="tuner", standalone_mode=False)
    assert says in command.sentence(caught.value)


def test_the_source_is_named_in_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNER_TRIAL_TIMEOUT", "soon")
    assert said(*NEEDED).startswith("TUNER_TRIAL_TIMEOUT is 'soon'; give a number of seconds")


def test_a_slip_in_a_variable_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TUNER_WORKRES", "3")
    monkeypatch.setenv("TUNER_PIANO", "3")
    parsed(*NEEDED)
    assert capsys.readouterr().err == (
        "warning: the variable TUNER_WORKRES is not read; did you mean TUNER_WORKERS?\n"
    )


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_shows_an_example_that_it_understands(name: str) -> None:
    found = getattr(importlib.import_module(f"tuner.{name}"), name)
    help_text = CliRunner().invoke(found, ["--help"]).output
    example = help_text.split("Example: ")[1].strip()
    words = example.removeprefix('eval "$(').removesuffix(')"').split()
    arguments = words[words.index(name) + 1 :] if name in words else words[3:]
    with found.make_context(name, arguments):
        pass


def test_the_defaults_in_the_help_are_the_programs() -> None:
    from tuner import cache, settings
    from tuner.machine import AUTO
    from tuner.search import DEFAULT_PRUNER, DEFAULT_SAMPLER

    for name, default in (
        ("storage", settings.DEFAULT_STORAGE),
        ("artifacts", settings.DEFAULT_ARTIFACTS),
        ("sampler", DEFAULT_SAMPLER),
        ("pruner", DEFAULT_PRUNER),
        ("precision", AUTO),
        ("cache-gb", f"{cache.DEFAULT_BOUND_GB:g}"),
        (
            "max-failures",
            f"{settings.LEAST_FAILURES}, or {settings.FAILURE_SHARE * 100:g} % of N if more",
        ),
    ):
        assert SETTINGS[name].default == default
