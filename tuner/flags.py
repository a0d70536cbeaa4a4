"""The settings that commands share: one registry of flags, and where a value comes from.

A setting's value is the first that is there of: its flag (``--trial-timeout``), its environment
variable (``TUNER_TRIAL_TIMEOUT``), its line in ``tuner.toml`` (``trial-timeout = 60``) in the
command's directory, its default. What a command is asked to do (a study, a number of trials) is
said by flags alone.
"""

import os
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from tuner.errors import UsageError
from tuner.machine import PRECISIONS, THREADS_VARIABLE
from tuner.values import amount, one_of, switch, text, whole
from tuner.wording import closest, closest_name, redact_value

FILE = Path("tuner.toml")
FORMATS = ("table", "json")
ENGINES = ("local", "ray")

Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


class Source(StrEnum):
    """Where a value comes from."""

    FLAG = "flag"
    ENVIRONMENT = "environment"
    FILE = "file"
    DEFAULT = "default"


_SOURCES = {
    ParameterSource.COMMANDLINE: Source.FLAG,
    ParameterSource.ENVIRONMENT: Source.ENVIRONMENT,
    ParameterSource.DEFAULT_MAP: Source.FILE,
}


@dataclass(frozen=True)
class Setting:
    """How something is to be done.

    Attributes:
        name: the flag without its dashes, which is the key in ``tuner.toml``, too.
        type: reads the value, see `tuner.values`.
        metavar: how the help calls the value; None for a switch.
        help: one sentence.
        default: the default in words, or "" if there is none; where it is a number or a name, it
            stands beside what it belongs to, and a test compares.
        variable: of the environment; None: ``TUNER_`` and the name.
        choices: what the shell offers for the value.
    """

    name: str
    type: Callable[[Any], Any]
    metavar: str | None
    help: str
    default: str = ""
    variable: str | None = None
    choices: Sequence[str] = ()

    @property
    def environment(self) -> str:
        """The environment variable."""
        return self.variable or "TUNER_" + self.name.upper().replace("-", "_")


SETTINGS: Mapping[str, Setting] = {
    setting.name: setting
    for setting in (
        Setting(
            "storage",
            text,
            "URL",
            "Database: sqlite:///FILE, postgresql://USER:PASSWORD@HOST/NAME or mysql://...",
            "sqlite:///tuner.db",
            variable="OPTUNA_STORAGE",  # Optuna's own tools read it, too
        ),
        Setting(
            "workers",
            whole(0, otherwise=" (0 runs the trials in this process)"),
            "W",
            "Worker processes; 0 runs the trials in this process, for a debugger.",
            "one a core, as far as the memory goes",
        ),
        Setting(
            "seed",
            whole(0),
            "S",
            "Seed of the whole study.",
            "drawn once and kept",
        ),
        Setting(
            "engine",
            one_of(*ENGINES),
            "NAME",
            "What starts the workers: local (processes of this machine) or ray (a Ray cluster).",
            ENGINES[0],
            choices=ENGINES,
        ),
        Setting(
            "ray-address",
            text,
            "ADDRESS",
            "The Ray cluster: auto (the one that runs here, or that RAY_ADDRESS names), HOST:PORT, "
            "ray://HOST:PORT, or local (one for this command alone).",
            "auto",
        ),
        Setting(
            "cpus-per-worker",
            amount("CPUs"),
            "C",
            "CPUs that Ray keeps for each worker, and its threads.",
            "1",
        ),
        Setting(
            "gpus-per-worker",
            amount("GPUs", zero=True),
            "G",
            "GPUs that Ray keeps for each worker; 0.5 lets two share one.",
            "0",
        ),
        Setting("sampler", text, "NAME", "tpe, random, qmc, gp, cmaes, grid or nsga2.", "tpe"),
        Setting(
            "pruner",
            text,
            "NAME",
            "asha, percentile, median, patient, hyperband or none.",
            "asha",
        ),
        Setting(
            "precision",
            one_of(*PRECISIONS),
            "NAME",
            "What layers compute in: float32, bfloat16, or auto (bfloat16 where the processor "
            "has instructions for it).",
            "auto",
            choices=PRECISIONS,
        ),
        Setting(
            "timeout",
            amount("seconds"),
            "SECONDS",
            "Stop after so long, hand running trials back, and exit 5.",
        ),
        Setting(
            "trial-timeout",
            amount("seconds"),
            "SECONDS",
            "Kill the worker of a trial that takes longer; the trial is retried twice, then fails.",
        ),
        Setting(
            "max-failures",
            whole(0),
            "F",
            "Give up (exit 4) when more trials fail.",
            "5, or 10 % of N if more",
        ),
        Setting(
            "artifacts",
            text,
            "DIR|URL",
            "Folder, or s3://BUCKET/PREFIX, for checkpoints of unfinished trials and for what "
            "completed ones leave; one that all hosts share lets any of them go on.",
            "tuner-artifacts",
        ),
        Setting(
            "cache-dir",
            text,
            "DIR",
            "Folder for what is computed once a machine.",
            "~/.cache/tuner",
        ),
        Setting(
            "cache-gb",
            amount("gigabytes", zero=True),
            "GB",
            "Bound of stored features in that folder; 0 stores none.",
            "5",
        ),
        Setting("quiet", switch, None, "One plain line a trial, also on a terminal."),
        Setting(
            "no-publish",
            switch,
            None,
            "Leave the study's page in optuna-dashboard as it is; it is brought up to date at the "
            "end otherwise.",
        ),
        Setting(
            "format",
            one_of(*FORMATS),
            "NAME",
            "table for people, or json: one document for programs.",
            FORMATS[0],
            choices=FORMATS,
        ),
    )
}

# click's name of a setting -> its own.
_KEYS = {name.replace("-", "_"): name for name in SETTINGS}

PASSWORD_FILE_VARIABLE = "TUNER_STORAGE_PASSWORD_FILE"  # noqa: S105 - a variable's name
"""Names a file with the password for a storage URL that has a user and none of its own."""

# Variables of ours that are no setting of a command: for workers, for containers, and for tests.
_OTHER_VARIABLES = (
    THREADS_VARIABLE,
    PASSWORD_FILE_VARIABLE,
    "TUNER_TEST_POSTGRESQL",
    "TUNER_TEST_MYSQL",
)


def setting(
    name: str,
    *,
    complete: Complete | None = None,
    type: Callable[[Any], Any] | None = None,  # noqa: A002 - click's name for it
    help: str = "",  # noqa: A002
) -> Callable[..., Any]:
    """The option of a setting, for a command.

    Args:
        name: of `SETTINGS`.
        complete: what the shell offers for its value; None: its choices.
        type: where this command takes other values.
        help: where this command says it otherwise.
    """
    found = SETTINGS[name]
    words = help or found.help
    words += f" [default: {found.default}]" if found.default else ""
    # Click takes even flag_value=None to mean that the value may be left out.
    only: dict[str, Any] = {}
    if found.metavar is None:
        only = {"is_flag": True, "flag_value": True, "cls": _Switch}
    return click.option(
        f"--{name}",
        type=type or found.type,
        metavar=found.metavar,
        envvar=found.environment,
        help=words,
        default=None,
        shell_complete=complete or offer(found.choices),
        **only,
    )


def offer(names: Sequence[str]) -> Complete:
    """What the shell offers for a value: those of the names that begin so."""

    def complete(
        _ctx: click.Context, _param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        return [CompletionItem(name) for name in names if name.startswith(incomplete)]

    return complete


@dataclass(frozen=True)
class Given:
    """A command's options as they were given.

    Attributes:
        values: by the option's name in Python; None where nobody gave one.
        sources: where each comes from.
    """

    values: Mapping[str, Any]
    sources: Mapping[str, Source]

    def subject(self, name: str) -> str:
        """How an error names this option: as it was given."""
        return _subject(name, self.sources.get(name, Source.FLAG))

    def by_flag(self, name: str) -> bool:
        """Whether it stands in the command line."""
        return self.sources.get(name) is Source.FLAG

    def again(self, *names: str) -> list[str]:
        """Those of these options that stand in the command line, for that of a next command."""
        found = [name for name in names if self.by_flag(name)]
        pairs = ((f"--{it.replace('_', '-')}", redact_value(str(self.values[it]))) for it in found)
        return [word for pair in pairs for word in pair]


def given() -> Given:
    """The options of the command that runs."""
    ctx = click.get_current_context()
    return Given(dict(ctx.params), {name: _source(ctx, name) for name in ctx.params})


def _source(ctx: click.Context, name: str) -> Source:
    source = ctx.get_parameter_source(name)
    return Source.DEFAULT if source is None else _SOURCES.get(source, Source.DEFAULT)


def subject_of(param: click.Parameter, ctx: click.Context | None) -> str:
    """How an error names a parameter: as its value was given."""
    if isinstance(param, click.Argument) or param.name is None:
        return "The argument"
    return _subject(param.name, _source(ctx, param.name) if ctx else Source.FLAG)


def _subject(name: str, source: Source) -> str:
    flag = name.replace("_", "-")
    if source is Source.ENVIRONMENT and flag in SETTINGS:
        return SETTINGS[flag].environment
    return f"{flag} in {FILE}" if source is Source.FILE else f"--{flag}"


class _Switch(click.Option):
    """A flag without a value, whose variable is read as it is: click ignores unknown words."""

    def value_from_envvar(self, ctx: click.Context) -> Any:  # noqa: ARG002 - click's signature
        """The variable's text, or None."""
        return os.environ.get(str(self.envvar)) or None


class Command(click.Command):
    """A command whose settings may also come from the environment and from ``tuner.toml``.

    Args:
        example: a command line, shown at the end of its help.
    """

    def __init__(self, *args: Any, example: str, **options: Any) -> None:
        options |= {
            "context_settings": {"max_content_width": 100},
            "epilog": f"Example: {example}",
        }
        super().__init__(*args, **options)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse, with the file's values below flags and environment; help needs no file."""
        wants_help = set(args) & set(self.get_help_option_names(ctx))
        mine = {str(param.name) for param in self.params} & set(_KEYS)
        if mine and not wants_help:
            found = _read_for(ctx)
            ctx.default_map = {key: found[_KEYS[key]] for key in mine if _KEYS[key] in found}
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            error.ctx = error.ctx or ctx  # click's parser leaves it out
            raise


def _read_for(ctx: click.Context) -> dict[str, Any]:
    """What the file says; a TAB does not mind one that is wrong."""
    if ctx.resilient_parsing:
        try:
            return read_file(FILE)
        except UsageError:
            return {}
    _warn_of_slips(os.environ)
    return read_file(FILE)


def read_file(path: Path) -> dict[str, Any]:
    """The settings in a ``tuner.toml``, by name; none if there is no such file.

    Raises:
        UsageError: it cannot be read, is no TOML, or has a key that is no setting.
    """
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read: {error.strerror}; mend it or move it away."
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(
            f'{path} is no TOML: {error}; write lines such as workers = 4 or pruner = "median".'
        ) from error
    for key in found:
        if key not in SETTINGS:
            raise UsageError(
                f"{path} has the key {redact_value(key)!r}, which is no setting; "
                f"{closest(key.replace('_', '-'), SETTINGS)}"
            )
    return found


def without_command(name: str) -> Any:
    """A setting's value where there is no command line: the environment's, the file's, or None.

    Raises:
        UsageError: see `read_file`.
    """
    return os.environ.get(SETTINGS[name].environment) or read_file(FILE).get(name)


def _warn_of_slips(environment: Mapping[str, str]) -> None:
    """Say it when a variable is almost one of ours; others may be somebody else's."""
    settings = {it.environment.removeprefix("TUNER_"): it for it in SETTINGS.values()}
    for name in environment:
        ending = name.removeprefix("TUNER_")
        if ending == name or ending in settings or name in _OTHER_VARIABLES:
            continue
        meant = closest_name(ending, settings)
        if meant is not None:
            hint = f"did you mean {settings[meant].environment}?"
            click.echo(f"warning: the variable {name} is not read; {hint}", err=True)
