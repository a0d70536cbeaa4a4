"""What the shell offers behind a flag: names of studies, samplers and pruners."""

import contextlib

import click
from click.shell_completion import CompletionItem

from tuner.flags import offer


def study_files(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Studies of ``./studies``; with a slash or a dot, files."""
    from tuner.study import STUDIES_DIRECTORY  # noqa: PLC0415 - a TAB must not wait for Optuna

    if "/" in incomplete or incomplete.startswith("."):
        return [CompletionItem(incomplete, type="file")]
    names = sorted(file.stem for file in STUDIES_DIRECTORY.glob("*.py"))
    return offer(names)(ctx, param, incomplete)


def study_names(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Studies of the database; nothing where it cannot be read."""
    from tuner.errors import TunerError  # noqa: PLC0415
    from tuner.settings import resolve_storage  # noqa: PLC0415
    from tuner.storage import open_database, read_overviews  # noqa: PLC0415

    with contextlib.suppress(TunerError):
        address = resolve_storage(ctx.params.get("storage"))
        with contextlib.closing(open_database(address, read_only=True)) as database:
            names = [study.name for study in read_overviews(database)]
            return offer(names)(ctx, param, incomplete)
    return []


def samplers(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of samplers."""
    from tuner.search import SAMPLERS  # noqa: PLC0415

    return offer(list(SAMPLERS))(ctx, param, incomplete)


def pruners(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of pruners."""
    from tuner.search import PRUNERS  # noqa: PLC0415

    return offer(list(PRUNERS))(ctx, param, incomplete)
