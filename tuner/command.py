"""How every command ends: one sentence on standard error, and an exit code."""

import logging
import os
import sys
from typing import NoReturn

import click

from tuner.errors import TunerError
from tuner.log import FORMAT, AddContext, quiet_libraries


def execute(command: click.Command) -> NoReturn:
    """Run a command with the process's arguments and exit.

    A `TunerError`, a wrong flag and Ctrl-C become a sentence; anything else is a bug of ours, and
    its traceback is wanted.
    """
    _set_up_logging()
    try:
        code = command.main(standalone_mode=False)
    except TunerError as error:
        _say(str(error))
        sys.exit(error.exit_code)
    except click.ClickException as error:
        _say(error.format_message())
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        _say("Interrupted.")
        sys.exit(130)
    except BrokenPipeError:  # `| head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)


def _say(sentence: str) -> None:
    click.echo(f"error: {sentence}", err=True)


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
