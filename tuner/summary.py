"""The words at the end of a run: what came out, where it is, and what to type next."""

import shlex

from optuna.trial import TrialState
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tuner import wording
from tuner.scoreboard import Scoreboard
from tuner.settings import RunSettings

# The metric of our own image studies; its complement is what people ask for.
ERROR_METRIC = "val_error"
# So many trials of several objectives are named.
_MOST_OF_FRONT = 7


def summarise(
    console: Console, board: Scoreboard, settings: RunSettings, shown_url: str, seconds: float
) -> None:
    """Print the end of a run that reached its target.

    Args:
        console: where.
        board: the final figures.
        settings: of the command.
        shown_url: the database without its password.
        seconds: the whole command took so long.
    """
    _print(console, _rows(board, settings, shown_url, seconds))


def summarise_detached(
    console: Console, board: Scoreboard, settings: RunSettings, shown_url: str
) -> None:
    """Print what a run with ``--detach`` has asked for, and how to go on.

    Args:
        console: where.
        board: the figures of what is there already.
        settings: of the command.
        shown_url: the database without its password.
    """
    given = settings.given
    if board.ended >= board.target:
        words = f"nothing to do: {board.ended} trials are there"
    else:
        words = f"{wording.count(board.target - board.ended, 'trial')} asked for, of any daemon"
    rows = [
        ("study", Text(f"{board.name}: {words}")),
        ("database", Text(shown_url)),
        ("next", _command("worker", *given.again("storage", "artifacts"))),
        ("", _command("status", *given.again("storage"))),
    ]
    _print(console, rows)


def _command(name: str, *flags: str) -> Text:
    """A command to type next."""
    return Text(shlex.join(["python", "-m", f"tuner.{name}", *flags]), style="bold")


def _print(console: Console, rows: list[tuple[str, Text]]) -> None:
    console.print()
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in rows:
        table.add_row(name, text)
    console.print(table)


def _rows(
    board: Scoreboard, settings: RunSettings, shown_url: str, seconds: float
) -> list[tuple[str, Text]]:
    if board.ended_here:
        done = f"{wording.count(board.ended_here, 'trial')} in {wording.duration(seconds)}"
    else:
        done = (
            f"nothing to do: {board.ended} trials are there, and {settings.trials} were asked for"
        )
    states = ", ".join(
        f"{board.count(state)} {word}"
        for state, word in (
            (TrialState.COMPLETE, "complete"),
            (TrialState.PRUNED, "pruned"),
            (TrialState.FAIL, "failed"),
        )
    )
    rows = [("study", Text(f"{board.name}: {done}")), ("trials", Text(states))]
    if board.diverged:
        rows.append(("", Text(f"{board.diverged} of the pruned ones diverged")))
    if board.infeasible:
        verb = "breaks" if board.infeasible == 1 else "break"
        rows.append(("", Text(f"{board.infeasible} of them {verb} a constraint")))
    rows += _front_rows(board) if board.front else _best_rows(board)
    rows.append(("database", Text(shown_url)))
    places = settings.given.again("storage", "artifacts")
    rows.append(("next", _command("report", "--study", board.name, *places)))
    rows.append(("", _command("dashboard", *places)))
    rows.append(("", _command_for_more(board, settings)))
    return rows


# What the next command must say again, if this one said it; the environment and tuner.toml stay.
_SAID_AGAIN = (
    "study_name", "compare", "sampler", "pruner", "precision", "artifacts", "cache_dir", "storage",
)  # fmt: skip


def _command_for_more(board: Scoreboard, settings: RunSettings) -> Text:
    same = settings.given.again(*_SAID_AGAIN)
    more = str(2 * board.ended)
    return _command("run", "--study", settings.study_argument, *same, "--trials", more)


def _front_rows(board: Scoreboard) -> list[tuple[str, Text]]:
    """With several objectives: trials that no other beats, spread evenly over them.

    Of those with the same values the first one.
    """
    sign = 1 if board.snapshot.direction == "minimize" else -1
    first: dict[tuple[float, ...], int] = {}
    for number in sorted(board.front):
        first.setdefault(tuple(board.front[number]), number)
    front = sorted(first.items(), key=lambda it: (sign * it[0][0], it[1]))
    count = min(len(front), _MOST_OF_FRONT)
    places = sorted({round(it * (len(front) - 1) / max(1, count - 1)) for it in range(count)})
    rows = [
        ("" if index else "not beaten", Text(f"{board.scores(values)} (trial {number})"))
        for index, (values, number) in enumerate(front[place] for place in places)
    ]
    words = "no other trial is as good in everything and better in something"
    more = f"{len(front) - count} more: {words}" if len(front) > count else words
    return [*rows, ("", Text(more, style="dim"))]


def _best_rows(board: Scoreboard) -> list[tuple[str, Text]]:
    best = board.best
    if best is None or best.value is None:
        why = "keeps to every constraint" if board.infeasible else "ran to its end"
        return [("best", Text(f"no trial {why}"))]
    score = f"{board.score(best)} (trial {best.number})"
    if board.snapshot.metric == ERROR_METRIC:
        score = f"validation accuracy {1 - best.value:.2%}, {score}"
    rows = [("best", Text(score, style="bold green"))]
    rows += [("", Text(f"{name} = {wording.number(value)}")) for name, value in best.params.items()]
    if board.count(TrialState.COMPLETE) > 1:
        luck = "the best of many is partly luck: a re-run of it will rather be a little worse"
        rows.append(("", Text(luck, style="dim")))
    return rows
