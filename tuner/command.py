"""How every command ends: one sentence on standard error, and an exit code."""

import errno
import io
import logging
import os
import shutil
import sys
import textwrap
from typing import NoReturn

import click

from tuner.errors import TunerError
from tuner.flags import subject_of
from tuner.log import FORMAT, AddContext, quiet_libraries
from tuner.wording import closest, closest_name, redact, redact_value


def execute(command: click.Command) -> NoReturn:
    """Run a command with the process's arguments and exit.

    A `TunerError`, a wrong flag and Ctrl-C become a sentence; anything else is a bug of ours, and
    its traceback is wanted.
    """
    _open_streams()
    _set_up_logging()
    try:
        code = command.main(standalone_mode=False)
        sys.stdout.flush()
    except TunerError as error:
        _say(str(error))
        sys.exit(error.exit_code)
    except click.ClickException as error:
        _say(sentence(error))
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        _say("Interrupted.")
        sys.exit(130)
    except BrokenPipeError:  # `| head` has read enough
        _drop_output()
        sys.exit(1)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        _drop_output()
        _say(f"There is no room to write to ({error.strerror}): make some, and run again.")
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)


def _open_streams() -> None:
    """Give a process that was started without standard streams some that lead nowhere.

    Otherwise the first pipes and files that it opens would take their numbers.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w", closefd=False))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # an encoding that lacks a letter is no error
            stream.reconfigure(errors="replace")


def _drop_output() -> None:
    """Let what is still to be written to the standard output go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def sentence(error: click.ClickException) -> str:
    """What is wrong with a command line, with the cause and the remedy."""
    ctx = error.ctx if isinstance(error, click.UsageError) else None
    see_help = f"see {ctx.command_path} --help." if ctx else "see --help."
    words = f"{redact_value(error.format_message()).rstrip('.')}; {see_help}"
    if isinstance(error, click.MissingParameter) and error.param is not None and ctx:
        what = error.param.make_metavar(ctx)
        flag = "" if isinstance(error.param, click.Argument) else f"{error.param.opts[0]} "
        words = f"{flag or 'The command '}{'is missing; add ' if flag else 'needs '}{flag}{what}."
    elif isinstance(error, click.NoSuchOption):
        known = [flag for param in ctx.command.params for flag in param.opts] if ctx else []
        near = closest_name(error.option_name, known)  # all of them would be too many
        remedy = f"did you mean {near}?" if near else see_help
        words = f"There is no option {error.option_name}; {remedy}"
    elif isinstance(error, click.NoSuchCommand) and ctx and isinstance(ctx.command, click.Group):
        known = ctx.command.list_commands(ctx)
        words = f"There is no command {error.command_name!r}; {closest(error.command_name, known)}"
    elif isinstance(error, click.BadOptionUsage) and "requires" in error.message and ctx:
        what = next(
            it.make_metavar(ctx) for it in ctx.command.params if error.option_name in it.opts
        )
        words = f"{error.option_name} needs a value; add {error.option_name} {what}."
    elif isinstance(error, click.BadParameter) and error.param is not None:
        words = f"{subject_of(error.param, ctx)} {error.message}"
    return words


def _say(text: str) -> None:
    """One line for a program that reads it; for people, broken between words."""
    line = f"error: {redact(text)}"
    if sys.stderr.isatty():
        width = shutil.get_terminal_size().columns
        line = textwrap.fill(line, width, break_long_words=False, break_on_hyphens=False)
    click.echo(line, err=True)


def _set_up_logging() -> None:
    """Our own warnings go to standard error; other libraries' chatter does not."""
    quiet_libraries()
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(FORMAT))
    handler.addFilter(AddContext())
    logger = logging.getLogger("tuner")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
