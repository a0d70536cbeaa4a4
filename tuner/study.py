"""What a study file declares: loading it, checking it, and telling two definitions apart.

A study file is Python. Module-level names that mean something here:

===============  ==========  ==================================================================
name             needed      meaning
===============  ==========  ==================================================================
objective        yes         ``objective(trial) -> float`` on an `optuna.Trial`; of several
                             objectives a sequence of numbers
space            no          ``dict[str, BaseDistribution]``, sampled before the objective is called
metric           no          the value's name, for people; default ``"value"``; for several
                             objectives a tuple of names
direction        no          ``"minimize"`` (default) or ``"maximize"``; for several objectives a
                             tuple, one for each
max_step         no          the greatest step that the objective reports; Hyperband needs it
steps_per_epoch  no          so many steps are an epoch: people are then shown epochs
prepare          no          ``prepare() -> None``, called in each worker before its first trial
footprint        no          ``footprint() -> list[Kept]``, what it keeps on the disk (--dry-run)
validate         no          ``validate(model_file) -> dict[str, float]``: a model's error on the
                             validation data, for ``export``
test             no          ``test(model_file) -> dict[str, float]``, names that begin with
                             ``test_``: on the test set; only ``confirm`` calls it
test_images      no          how many images ``test`` looks at
data             no          the data's name, licence and authors, for a model's card
final            no          ``final(trial) -> None``, trains ``trial.params`` on training and
                             validation data, for ``export --final``
===============  ==========  ==================================================================

Without ``space`` the objective suggests its own parameters, as any Optuna objective does. Files
that it leaves in the folder ``trial.outputs`` are kept when the trial completes; the trained model
among them is ``model.keras``.
"""

import ast
import difflib
import hashlib
import importlib.util
import json
import math
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, distribution_to_json, json_to_distribution

from tuner import wording
from tuner.cache import Kept
from tuner.errors import TunerError, UsageError

STUDIES_DIRECTORY = Path("studies")

DEFAULT_METRIC = "value"
DEFAULT_DIRECTION = "minimize"
DIRECTIONS = ("minimize", "maximize")

# Functions that a study file may declare beside its objective, for other commands than `run`.
OFFERS = ("validate", "test", "final")
# How the names in test()'s answer begin: they become a run's attributes.
TEST_PREFIX = "test_"

# What a slip of one of these names would hold: such a name gets an error instead of silence. Not of
# numbers: batches_per_epoch and max_steps are good names of other things.
_LOOKS_LIKE: Mapping[str, Callable[[object], bool]] = {
    "space": lambda value: (
        isinstance(value, dict) and any(isinstance(it, BaseDistribution) for it in value.values())
    ),
    "direction": lambda value: value in DIRECTIONS if isinstance(value, str) else False,
    "prepare": callable,
    "footprint": callable,
    "validate": callable,
}
_SLIP_SIMILARITY = 0.8  # of difflib, 0 to 1


@dataclass(frozen=True)
class Snapshot:
    """The part of a definition that data can hold: kept in the database, read by every command.

    Attributes:
        space: distributions as Optuna's JSON, in the order of the file; None for a define-by-run
            study.
        file: the study file's path as given.
        file_hash: SHA-256 of its text.
        steps_per_epoch: how many steps are an epoch, for people; None if that is not declared.
        test_images: how many images the study's test looks at; None if that is not declared.
        data: name, licence and authors of the data; None if that is not declared.
        offers: which of `OFFERS` the file declares.
        more_objectives: metric and direction of each objective after the first.
    """

    space: dict[str, str] | None
    metric: str
    direction: str
    max_step: int | None
    file: str
    file_hash: str
    steps_per_epoch: int | None = None
    test_images: int | None = None
    data: str | None = None
    offers: tuple[str, ...] = ()
    more_objectives: tuple[tuple[str, str], ...] = ()

    @property
    def metrics(self) -> list[str]:
        """The name of each objective's value."""
        return [self.metric, *(metric for metric, _ in self.more_objectives)]

    @property
    def directions(self) -> list[str]:
        """``minimize`` or ``maximize`` of each objective."""
        return [self.direction, *(direction for _, direction in self.more_objectives)]

    def fingerprint(self) -> dict[str, Any]:
        """What must not change under one study name: values would not be comparable."""
        whole = {**asdict(self), "metric": self.metrics, "direction": self.directions}
        return {key: whole[key] for key in ("space", "metric", "direction", "max_step")}

    def difference(self, other: "Snapshot") -> str:
        """The first difference of two fingerprints in words, or "" if there is none."""
        mine, theirs = self.fingerprint(), other.fingerprint()
        for key in ("metric", "direction", "max_step"):
            if mine[key] != theirs[key]:
                now, was = (_and(it[key]) for it in (mine, theirs))
                return f"{key} is {now} and was {was}"
        mine_space, their_space = mine["space"] or {}, theirs["space"] or {}
        for name in sorted(mine_space.keys() | their_space.keys()):
            if mine_space.get(name) != their_space.get(name):
                now, was = (_in_words(s.get(name)) for s in (mine_space, their_space))
                return f"{name} is {now} and was {was}"
        return ""

    def require_same(self, then: "Snapshot", study: str) -> None:
        """Refuse a study file that is not the one of a study any more.

        Raises:
            UsageError: the fingerprint is another one.
        """
        if difference := self.difference(then):
            raise UsageError(
                f"{self.file} is no longer the file of {study}: {difference}; bring back the "
                "version that it was run with."
            )

    def distributions(self) -> dict[str, BaseDistribution] | None:
        """The space as Optuna's distributions, or None for a define-by-run study."""
        if self.space is None:
            return None
        return {name: json_to_distribution(text) for name, text in self.space.items()}

    def to_json(self) -> str:
        """As text, for the database and for messages between processes."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> "Snapshot":
        """The inverse of `to_json`."""
        return Snapshot.from_dict(json.loads(text))

    @staticmethod
    def from_dict(stored: dict[str, Any]) -> "Snapshot":
        """From what a database holds, perhaps of another version, which has more names or fewer."""
        known = [field.name for field in fields(Snapshot)]
        values = {name: stored[name] for name in known if name in stored}
        more = tuple((metric, way) for metric, way in values.get("more_objectives", ()))
        lists = {"offers": tuple(values.get("offers", ())), "more_objectives": more}
        return Snapshot(**{**values, **lists})


@dataclass(frozen=True)
class Definition:
    """A loaded study file.

    Attributes:
        prepare: the file's own, or one that does nothing; raises a `UsageError` when that fails.
        footprint: likewise; nothing where the file does not say.
        offered: those of `OFFERS` that the file has, by name.
    """

    objective: Callable[[optuna.Trial], float | Sequence[float]]
    space: dict[str, BaseDistribution] | None
    prepare: Callable[[], None]
    footprint: Callable[[], list[Kept]]
    snapshot: Snapshot
    offered: Mapping[str, Callable[..., Any]] = field(default_factory=dict)

    def measure(self, name: str, model_file: Path) -> dict[str, float]:
        """Call ``validate`` or ``test``.

        Raises:
            UsageError: there is no model file, or the answer is not as it must be.
        """
        if not model_file.is_file():
            raise UsageError(
                f"{name}() in {self.snapshot.file} has nothing to look at: the objective left no "
                f"{model_file.name} in trial.outputs; save the model there."
            )
        path = Path(self.snapshot.file)
        answer = _call(path, name, lambda: self.offered[name](model_file))
        return _checked_answer(self.snapshot.file, name, answer)


def find_file(name_or_path: str) -> Path:
    """The file that ``--study`` means.

    Args:
        name_or_path: ``mnist`` for ``studies/mnist.py``, or a path that ends in ``.py``.

    Raises:
        UsageError: there is no such file; the closest name is offered.
    """
    is_path = name_or_path.endswith(".py") or "/" in name_or_path
    path = Path(name_or_path) if is_path else STUDIES_DIRECTORY / f"{name_or_path}.py"
    if _is_file(path):
        return path
    if is_path:
        raise UsageError(f"There is no study file {name_or_path}; check the path.")
    known = sorted(file.stem for file in STUDIES_DIRECTORY.glob("*.py"))
    if not known:
        raise UsageError(
            f"There is no study {name_or_path!r}: the directory {STUDIES_DIRECTORY.resolve()} has "
            "no study files; give a path that ends in .py, or change to the project's directory."
        )
    close = difflib.get_close_matches(name_or_path, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(known)}."
    raise UsageError(f"There is no study {name_or_path!r} ({path} does not exist); {hint}")


def find_again(file: str) -> Path:
    """The study file that a database names, on this host: where it was, else in ``studies``.

    Raises:
        UsageError: it is not here.
    """
    for path in (Path(file), STUDIES_DIRECTORY / Path(file).name):
        if _is_file(path):
            return path
    raise UsageError(
        f"There is no {file} and no {STUDIES_DIRECTORY / Path(file).name} here; change to the "
        "project's directory, or copy the study file here."
    )


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError as error:  # a name that is too long, or a folder that may not be entered
        raise UsageError(
            f"The study file {wording.cut(str(path))} cannot be read: {error.strerror}; name "
            "another."
        ) from error


def load(path: Path) -> Definition:
    """Load and check a study file. This runs its code.

    Raises:
        UsageError: the file cannot be run, or what it declares is wrong.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise UsageError(
            f"The study file {path} cannot be read: {error.strerror}; check its permissions."
        ) from error
    module = _run(path)
    _refuse_two_studies(path, text)
    declared = vars(module)
    _refuse_slips(path, declared)
    objective = declared.get("objective")
    if not callable(objective):
        slip = difflib.get_close_matches("objective", list(declared), n=1, cutoff=0.7)
        hint = f"; it has {slip[0]!r}" if slip else ""
        raise UsageError(
            f"The study file {path} has no function objective(trial){hint}. "
            "Define one that returns the value to optimise."
        )
    prepare = _checked_function(path, "prepare", declared)
    footprint = _checked_function(path, "footprint", declared)
    # What is no function may be the user's data: a name like test is a common one.
    offered = {name: declared[name] for name in OFFERS if callable(declared.get(name))}
    space = _checked_space(path, declared.get("space"))
    objectives = _checked_objectives(path, declared)
    snapshot = Snapshot(
        space=None if space is None else _space_as_json(path, space),
        metric=objectives[0][0],
        direction=objectives[0][1],
        max_step=_checked_whole(path, "max_step", declared.get("max_step")),
        file=str(path),
        file_hash=hashlib.sha256(text).hexdigest(),
        steps_per_epoch=_checked_whole(path, "steps_per_epoch", declared.get("steps_per_epoch")),
        test_images=_checked_whole(path, "test_images", declared.get("test_images")),
        data=data if isinstance(data := declared.get("data"), str) else None,
        offers=tuple(offered),
        more_objectives=objectives[1:],
    )
    return Definition(
        objective,
        space,
        lambda: _call(path, "prepare", prepare),
        lambda: _checked_footprint(path, _call(path, "footprint", footprint)),
        snapshot,
        offered,
    )


def _call(path: Path, name: str, function: Callable[[], Any] | None) -> Any:
    """Call a function of the study file, if it has it."""
    try:
        return None if function is None else function()
    except TunerError:
        raise
    except (Exception, SystemExit) as error:  # user code
        raise UsageError(
            f"{name}() in {path} failed: {_where(error, path)}; mend it and run again."
        ) from error


class _FromSource(SourceFileLoader):
    """Compiles the file as it is now.

    Python takes what it compiled before for a file of the same size and second: the trials would
    be of another version than the hash that they record.
    """

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


def _run(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"study_{path.stem}", path)
    if spec is None:
        raise UsageError(f"The study file {path} is not Python; name a file that ends in .py.")
    spec.loader = _FromSource(spec.name, str(path))
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module
    sys.path.insert(0, str(path.resolve().parent))  # its neighbours can be imported
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # user code
        raise UsageError(
            f"The study file {path} cannot be loaded: {_where(error, path)}; mend it and run again."
        ) from error
    return module


def _where(error: BaseException, path: Path) -> str:
    """An exception of user code in one line: the line of the study file, the type, the message."""
    if isinstance(error, SyntaxError):
        elsewhere = error.filename not in {str(path), str(path.resolve())}
        file = f"{error.filename} " if elsewhere and error.filename else ""
        line = f"line {error.lineno}: " if error.lineno else ""
        return f"{file}{line}SyntaxError: {error.msg}"
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename == str(path) or frame.filename == str(path.resolve())
    ]
    place = f"line {lines[-1]}: " if lines else ""
    message = " ".join(str(error).split())
    return f"{place}{type(error).__name__}" + (f": {message}" if message else "")


def _refuse_slips(path: Path, declared: Mapping[str, object]) -> None:
    for name, value in declared.items():
        absent = [meant for meant in _LOOKS_LIKE if meant not in declared]
        for meant in difflib.get_close_matches(name, absent, n=1, cutoff=_SLIP_SIMILARITY):
            if _LOOKS_LIKE[meant](value):
                raise UsageError(
                    f"The study file {path} has the name {name!r}; did you mean {meant!r}? "
                    f"Write that, or call it something less like it."
                )


def _refuse_two_studies(path: Path, text: bytes) -> None:
    """Of two functions of one name, Python would silently take the last.

    Where the name is used, the last one may well build on the first; where it is deleted, it is
    replaced on purpose.
    """
    tree = ast.parse(text)
    lines = [
        node.lineno
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name == "objective"
    ]
    used = any(
        isinstance(node, ast.Name)
        and node.id == "objective"
        and not isinstance(node.ctx, ast.Store)
        for node in ast.walk(tree)
    )
    if len(lines) > 1 and not used:
        places = " and ".join(str(line) for line in lines)
        raise UsageError(
            f"The study file {path} defines objective more than once (lines {places}); a file "
            "holds one study, so move each of them to a file of its own."
        )


def _checked_footprint(path: Path, kept: object) -> list[Kept]:
    if kept is None:
        return []
    if not isinstance(kept, list | tuple) or not all(isinstance(it, Kept) for it in kept):
        raise UsageError(
            f"footprint() in {path} returned {kept!r}; it takes a list of tuner.cache.Kept."
        )
    return [replace(it, size=int(it.size)) for it in kept]


def _checked_answer(file: str, name: str, answer: object) -> dict[str, float]:
    if isinstance(answer, Mapping) and answer:
        numbers = {key: _finite(value) for key, value in answer.items()}
        begins = TEST_PREFIX if name == "test" else ""
        if all(isinstance(key, str) and key.startswith(begins) for key in numbers) and not any(
            value is None for value in numbers.values()
        ):
            return {key: value for key, value in numbers.items() if value is not None}
    example = f'{{"{TEST_PREFIX}error": 0.0061}}' if name == "test" else '{"val_error": 0.0063}'
    raise UsageError(
        f"{name}() in {file} returned {wording.cut(repr(answer))}; it takes finite numbers by "
        f"name, for example {example}."
    )


def _finite(value: object) -> float | None:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _checked_function(
    path: Path, name: str, declared: Mapping[str, object]
) -> Callable[..., Any] | None:
    function = declared.get(name)
    if function is not None and not callable(function):
        raise UsageError(f"{name} in {path} is {function!r}; make it a function or remove it.")
    return function


def _checked_space(path: Path, space: object) -> dict[str, BaseDistribution] | None:
    if space is None:
        return None
    if not isinstance(space, dict) or not space:
        raise UsageError(
            f"space in {path} is {space!r}; make it a dict from a parameter's name to an Optuna "
            "distribution, or leave it out and call trial.suggest_* in the objective."
        )
    for name, distribution in space.items():
        if not isinstance(name, str) or not isinstance(distribution, BaseDistribution):
            raise UsageError(
                f"space in {path} maps {name!r} to {distribution!r}; it takes an Optuna "
                "distribution, for example FloatDistribution(1e-4, 1.0, log=True)."
            )
    return space


def _space_as_json(path: Path, space: dict[str, BaseDistribution]) -> dict[str, str]:
    texts = {}
    for name, distribution in space.items():  # in this order they are sampled
        try:
            texts[name] = distribution_to_json(distribution)
        except TypeError as error:
            raise UsageError(
                f"space in {path} has choices for {name} that a database cannot hold ({error}); "
                "make them strings, numbers, booleans or None, and look them up in the objective."
            ) from error
    return texts


def _checked_objectives(path: Path, declared: Mapping[str, object]) -> tuple[tuple[str, str], ...]:
    """Metric and direction of each objective."""
    metric = declared.get("metric", DEFAULT_METRIC)
    if not isinstance(metric, list | tuple):
        direction = declared.get("direction", DEFAULT_DIRECTION)
        return ((_checked_metric(path, metric), _checked_direction(path, direction)),)
    metrics = [_checked_metric(path, it) for it in metric]
    directions = declared.get("direction", [DEFAULT_DIRECTION] * len(metrics))
    if not metrics or len(set(metrics)) < len(metrics):
        raise UsageError(
            f"metric in {path} is {metric!r}; write a name for each objective, each another one."
        )
    if not isinstance(directions, list | tuple) or len(directions) != len(metrics):
        raise UsageError(
            f"direction in {path} is {directions!r}, and metric has "
            f"{wording.count(len(metrics), 'name')}; write a direction for each, for example "
            f"{(DEFAULT_DIRECTION,) * len(metrics)!r}."
        )
    return tuple(
        (name, _checked_direction(path, way)) for name, way in zip(metrics, directions, strict=True)
    )


def _checked_metric(path: Path, metric: object) -> str:
    if not isinstance(metric, str) or not metric or not metric.isprintable():
        raise UsageError(f'metric in {path} is {metric!r}; write a name, for example "val_error".')
    return metric


def _checked_direction(path: Path, direction: object) -> str:
    if direction not in DIRECTIONS:
        raise UsageError(f'direction in {path} is {direction!r}; write "minimize" or "maximize".')
    return str(direction)


def _checked_whole(path: Path, name: str, value: object) -> int | None:
    if value is None or (isinstance(value, int) and value >= 1):
        return value
    raise UsageError(f"{name} in {path} is {value!r}; write a whole number from 1.")


def _and(value: object) -> str:
    return " and ".join(map(repr, value)) if isinstance(value, list) else repr(value)


def _in_words(distribution_json: str | None) -> str:
    return "absent" if distribution_json is None else str(json_to_distribution(distribution_json))
