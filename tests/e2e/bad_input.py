"""Bad input and what is said of it: one table of cases, run as processes or in this one.

`python -m tests.e2e.bad_input` prints the table with the sentence of each.
"""

import contextlib
import dataclasses
import functools
import importlib
import io
import logging
import os
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from unittest import mock

import click
import sqlalchemy

from tests.conftest import ENVIRONMENT, ROOT, SERVERS, admin
from tuner import interrupt
from tuner.command import execute
from tuner.storage import open_database

GOOD = "def objective(trial):\n    return trial.suggest_float('x', 0, 1)\n"
# A task on so few digits that its base takes a second.
DIGITS = f"""
import dataclasses, sys
sys.path.insert(0, {str(ROOT / "studies")!r})
import mnist
from tuner.finetune import Recipe
mnist.task = dataclasses.replace(
    mnist.task, images=lambda: mnist.mnist().first(256, 100), epochs=1, report_at=(4,),
    base_recipe=Recipe(epochs=1),
)
space, metric, objective, prepare = mnist.space, mnist.metric, mnist.objective, mnist.task.prepare
"""
NEEDED = ("--study", "good.py", "--trials", "3")
INLINE = (*NEEDED, "--workers", "0")
# Where boto3 finds nobody, and nothing of this machine's.
NO_SERVER = {
    "AWS_ENDPOINT_URL": "http://me:s3cr3t@127.0.0.1:1", "AWS_ACCESS_KEY_ID": "me",
    "AWS_SECRET_ACCESS_KEY": "s3cr3t", "AWS_DEFAULT_REGION": "us-east-1", "AWS_MAX_ATTEMPTS": "1",
    "AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Case:
    """Something wrong.

    Attributes:
        name: what.
        arguments: of the command; in them and in what is said, {here} is the case's folder.
        code: the exit code.
        says: part of the sentence.
        command: the command's name.
        study: text of a file ``study.py``; ``good.py`` is always there.
        config: text of ``tuner.toml``.
        env: variables.
        prepare: makes what is wrong, given the folder.
        leaves: names of files that are there afterwards for good reason.
        process: a real process, and not a call.
    """

    name: str
    arguments: tuple[str, ...]
    code: int
    says: str
    command: str = "run"
    study: str | bytes | None = None
    config: str | None = None
    env: Mapping[str, str] = dataclasses.field(default_factory=dict)
    prepare: Callable[[Path], object] | None = None
    leaves: tuple[str, ...] = ()
    process: bool = False


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    out: str
    err: str
    left: set[str]


def in_process(case: Case, arguments: list[str], folder: Path) -> tuple[int, str, str]:
    """Call the command in this process, as its entry does."""
    out, err = io.StringIO(), io.StringIO()
    log = logging.getLogger("tuner")
    handlers, level = list(log.handlers), log.level
    command = getattr(importlib.import_module(f"tuner.{case.command}"), case.command)
    with (
        contextlib.chdir(folder),
        mock.patch.dict(os.environ, {**ENVIRONMENT, **case.env}, clear=True),
        mock.patch.object(sys, "argv", [case.command, *arguments]),
        mock.patch.object(sys, "path", list(sys.path)),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            execute(command)
        except SystemExit as end:
            code = int(end.code or 0)
        finally:
            log.handlers, log.level, log.propagate = handlers, level, True
            interrupt.clear()  # as at a process's end
    return code, out.getvalue(), err.getvalue()


def as_process(case: Case, arguments: list[str], folder: Path) -> tuple[int, str, str]:
    """Run the command as its user does."""
    done = subprocess.run(
        [sys.executable, "-m", f"tuner.{case.command}", *arguments],
        cwd=folder,
        env={**ENVIRONMENT, "PYTHONPATH": str(ROOT), **case.env},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def outcome_of(case: Case, folder: Path) -> Outcome:
    """Do it."""
    (folder / "good.py").write_text(GOOD)
    if case.study is not None:
        text = case.study
        (folder / "study.py").write_bytes(text if isinstance(text, bytes) else text.encode())
    if case.config is not None:
        (folder / "tuner.toml").write_text(case.config)
    if case.prepare is not None:
        case.prepare(folder)
    before = {path.name for path in folder.iterdir()}
    arguments = [word.replace("{here}", str(folder)) for word in case.arguments]
    how = as_process if case.process else in_process
    code, out, err = how(case, arguments, folder)
    ignored = {"__pycache__", *case.leaves}
    left = {path.name for path in folder.iterdir()} - before - ignored
    return Outcome(code, out, err, left)


@contextlib.contextmanager
def server_database(kind: str, *more: str) -> Iterator[str]:
    """The URL of a database of its own on a server, prepared by statements."""
    name = f"tuner_test_{uuid.uuid4().hex[:12]}"
    with admin(kind).connect() as connection:
        for statement in (f"CREATE DATABASE {name}", *more):
            connection.execute(sqlalchemy.text(statement.format(name=name)))
    try:
        yield str(sqlalchemy.engine.make_url(SERVERS[kind]).set(database=name))
    finally:
        with admin(kind).connect() as connection:
            connection.execute(sqlalchemy.text(f"DROP DATABASE {name}"))


def _notes(folder: Path) -> None:
    (folder / "notes.txt").write_text("not a database, but long enough to be looked at " * 10)


def _sqlite(folder: Path, name: str, *statements: str) -> None:
    engine = sqlalchemy.create_engine(f"sqlite:///{folder / name}")
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
    engine.dispose()


def _foreign(folder: Path) -> None:
    _sqlite(folder, "shop.db", "CREATE TABLE invoices (id INTEGER)")


def _older(folder: Path) -> None:
    open_database(f"sqlite:///{folder}/older.db").close()
    _sqlite(folder, "older.db", "UPDATE alembic_version SET version_num = 'v0.9.0.a'")


def _begun(folder: Path) -> None:
    """Three trials of good.py, with the seed 5."""
    case = Case("", (*INLINE, "--seed", "5", "--storage", f"sqlite:///{folder}/tuner.db"), 0, "")
    assert in_process(case, list(case.arguments), folder)[0] == 0


def _other_space(folder: Path) -> None:
    space = (
        "from optuna.distributions import FloatDistribution\n"
        "space = {'x': FloatDistribution(0, %d)}\n"
    )
    (folder / "good.py").write_text(GOOD + space % 1)
    _begun(folder)
    (folder / "good.py").write_text(GOOD + space % 2)


def _folder_of_py(folder: Path) -> None:
    (folder / "study.py").mkdir()


def _full(folder: Path) -> None:
    """A SQLite file that may not grow any more, in every process."""
    _begun(folder)
    code = (
        "import sqlite3\nfrom sqlite3 import dbapi2\nconnect = sqlite3.connect\n"
        "def full(*arguments, **options):\n"
        "    connection = connect(*arguments, **options)\n"
        "    if 'nolock' not in str(arguments[0]):\n"  # that one only looks
        "        connection.execute('PRAGMA max_page_count=1')\n"  # no less than there are
        "    return connection\n"
        "sqlite3.connect = dbapi2.connect = full\n"
    )
    (folder / "full").mkdir()
    (folder / "full" / "sitecustomize.py").write_text(code)


def _without(package: str, folder: Path) -> None:
    """Hide an installed package from every process that begins with this folder."""
    (folder / "without").mkdir()
    (folder / "without" / "sitecustomize.py").write_text(
        f"import sys\nsys.modules[{package!r}] = None\n"
    )


def _cut_base(folder: Path) -> None:
    """The base that a run has made, cut in the middle."""
    case = Case("", (), 0, "", env={"TUNER_CACHE_DIR": str(folder / "cache")})
    arguments = ["--study", "study.py", "--trials", "1", "--workers", "1", "--storage",
                 f"sqlite:///{folder}/first.db"]  # fmt: skip
    code, _, err = as_process(case, arguments, folder)
    assert code == 0, err
    (base,) = (folder / "cache").glob("base-*.npz")
    base.write_bytes(base.read_bytes()[:1000])


STUDY = ("--study", "study.py", "--trials", "3", "--workers", "0", "--storage",
         "sqlite:///study.db")  # fmt: skip
BY_WORKER = ("--study", "study.py", "--trials", "3", "--workers", "1")
TRIALS_RAN = ("study.db", "tuner.db")

CASES = (
    # What is typed.
    Case("no study", ("--trials", "3"), 2, "--study is missing; add --study NAME|PATH."),
    Case("no number of trials", ("--study", "good.py"), 2, "--trials is missing; add --trials N."),
    Case("no trials", ("--study", "good.py", "--trials", "0"), 2, "--trials is '0'; give a whole"),
    Case("trials in words", ("--study", "good.py", "--trials", "many"), 2, "--trials is 'many'",
         process=True),
    Case("too many trials", ("--study", "good.py", "--trials", "9" * 30), 2, "up to 2,147,483,647"),
    Case("a flag with a slip", ("--study", "good.py", "--trails", "3"), 2,
         "There is no option --trails; did you mean --trials?", process=True),
    Case("a flag of another program", (*NEEDED, "--gpus", "all"), 2, "There is no option --gpus;"),
    Case("a flag without its value", (*NEEDED, "--storage"), 2, "--storage needs a value; add"),
    Case("a URL without its flag", (*NEEDED, "mysql://me:s3cr3t@db/x"), 2, "extra argument (mysql"),
    Case("negative workers", (*NEEDED, "--workers", "-2"), 2, "--workers is '-2'; give a whole"),
    Case("half a worker", (*NEEDED, "--workers", "1.5"), 2, "--workers is '1.5'; give a whole"),
    Case("no time at all", (*NEEDED, "--timeout", "0"), 2, "--timeout is '0'; give a number"),
    Case("a time that is no number", (*NEEDED, "--timeout", "nan"), 2, "--timeout is 'nan'"),
    Case("a limit for trials in this process", (*INLINE, "--trial-timeout", "9"), 2,
         "--trial-timeout 9 needs worker processes"),
    Case("an unknown sampler", (*NEEDED, "--sampler", "tp"), 2, "did you mean 'tpe'?"),
    Case("an unknown pruner", (*NEEDED, "--pruner", "hyperbnd"), 2, "did you mean 'hyperband'?",
         process=True),
    Case("an unknown precision", (*NEEDED, "--precision", "half"), 2, "choose one of: auto, float"),
    Case("a negative seed", (*NEEDED, "--seed", "-1"), 2, "--seed is '-1'; give a whole number"),
    Case("another seed than the study's", (*INLINE, "--seed", "6"), 2,
         "was begun with --seed 5, and 6 would not", prepare=_begun),
    Case("artifacts in a file", (*NEEDED, "--artifacts", "good.py"), 2, "which is no folder"),
    Case("artifacts under another scheme", (*NEEDED, "--artifacts", "file:///b"), 2,
         "kept in a folder or a bucket; name a folder, or s3://BUCKET"),
    Case("artifacts in no bucket", (*NEEDED, "--artifacts", "s3://me:s3cr3t@b"), 2,
         "which names no bucket"),
    Case("artifacts in a bucket on no server", (*INLINE, "--artifacts", "s3://bucket"), 3,
         "The artifact store s3://bucket cannot be used: Could not connect", env=NO_SERVER),
    Case("a daemon with a bucket on no server", ("--artifacts", "s3://bucket/x"), 3,
         "The artifact store s3://bucket/x cannot be used: Could not", "worker", env=NO_SERVER),
    Case("a look at a bucket on no server", (*NEEDED, "--artifacts", "s3://bucket", "--dry-run"), 3,
         "The artifact store s3://bucket cannot be used: Could not", env=NO_SERVER),
    Case("runs with a bucket on no server", ("--study", "good", "--seeds", "2", "--artifacts",
         "s3://bucket"), 3, "The artifact store s3://bucket cannot be used: Could not", "confirm",
         prepare=_begun, env=NO_SERVER),
    Case("a model in a bucket on no server", ("--study", "good", "--out", "model", "--artifacts",
         "s3://bucket"), 3, "The artifact store s3://bucket cannot be used: Could not", "export",
         prepare=_begun, env=NO_SERVER),
    Case("files in a bucket without credentials", ("--artifacts", "s3://bucket"), 3,
         "; check AWS_ACCESS_KEY_ID", "gc", prepare=_begun, env={
             **NO_SERVER, "AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "",
             "AWS_EC2_METADATA_DISABLED": "true"}),
    Case("a bucket without boto3", (*INLINE, "--artifacts", "s3://bucket"), 2,
         "needs the package boto3; install it with: pip install 'tuner[s3]'",
         prepare=functools.partial(_without, "boto3"),
         env={"PYTHONPATH": f"{{here}}/without:{ROOT}"}, process=True),
    Case("an unknown engine", (*NEEDED, "--engine", "dask"), 2, "choose one of: local, ray"),
    Case("ray without a number of workers", (*NEEDED, "--engine", "ray"), 2, "add --workers W"),
    Case("an address of ray without ray", (*NEEDED, "--ray-address", "auto"), 2,
         "--ray-address is for --engine ray"),
    Case("no CPU for a worker", (*NEEDED, "--cpus-per-worker", "0"), 2, "give a number of CPUs"),
    Case("ray without its package", (*NEEDED, "--engine", "ray", "--workers", "2"), 2,
         "needs the package ray; install it with: pip install 'tuner[ray]'",
         prepare=functools.partial(_without, "ray"),
         env={"PYTHONPATH": f"{{here}}/without:{ROOT}"}, process=True),
    Case("a cache in a file", (*NEEDED, "--cache-dir", "good.py"), 2, "--cache-dir is 'good.py'"),
    Case("a cache of no size", (*NEEDED, "--cache-gb", "-1"), 2, "--cache-gb is '-1'; give"),
    Case("a name that is too long", (*NEEDED, "--study-name", "n" * 600), 2, "has 600 characters"),
    Case("a grid on a continuous parameter", (*INLINE, "--sampler", "grid"), 2,
         "must know the space before the first trial"),
    Case("hyperband without a greatest step", (*INLINE, "--pruner", "hyperband"), 2,
         "add max_step = N to good.py"),
    Case("a sampler whose package is missing", (*INLINE, "--sampler", "gp"), 2, "install torch"),
    Case("a wish that is none", ("stopp", "--study", "x"), 2, "did you mean 'stop'?", "control"),
    Case("a study that is not there", ("stop", "--study", "godo"), 2, "did you mean 'good'?",
         "control", prepare=_begun),
    Case("a format that is none", ("--format", "xml"), 2, "choose one of: table, json", "status"),
    Case("no database to look at", (), 3, "There is no database {here}/tuner.db", "status"),
    Case("a report on nothing", (), 2, "--study is missing; add --study NAME.", "report"),
    Case("a report without a database", ("--study", "good"), 3, "There is no database {here}/tune",
         "report"),
    Case("a report on a study that is not there", ("--study", "godo"), 2, "did you mean 'good'?",
         "report", prepare=_begun),
    Case("one of two studies that is not there", ("--study", "good", "--study", "x"), 2,
         "choose one of: good.", "report", prepare=_begun),
    Case("a report in a folder that is not there", ("--study", "good", "--out", "no/page.html"), 2,
         "--out is no/page.html, and there is no folder no; make it", "report"),
    Case("a report as a folder", ("--study", "good", "--out", "{here}"), 2,
         "--out is {here}, and that is a folder; name a file.", "report"),
    Case("a report where nothing can be written", ("--study", "good", "--out", "/sys/page.html"), 2,
         "/sys/page.html cannot be written: ", "report", prepare=_begun, process=True),
    Case("tables in a file", ("--study", "good", "--csv", "good.py"), 2,
         "--csv is good.py, and that is a file; name a folder.", "report"),
    Case("a page that no disk takes", ("--study", "good", "--out", "x" * 300), 2,
         "cannot be written: File name too long.", "report"),
    Case("a daemon without workers", ("--workers", "0"), 2, "a whole number from 1.", "worker"),
    Case("a name of a file that no disk takes", ("--study", "x" * 300 + ".py", "--trials", "3"), 2,
         "... cannot be read: File name too long; name another."),
    Case("a folder that no disk takes", (*NEEDED, "--artifacts", "x" * 300), 2,
         "which cannot be used: File name too long"),
    Case("a name with a command for the terminal", (*NEEDED, "--study-name", "\x1b[2Jx"), 2,
         "--study-name is '\\x1b[2Jx'; give a text."),
    Case("a cache beyond all disks", (*NEEDED, "--cache-gb", "1e300"), 2, "up to 1,000,000,000."),
    # The environment and tuner.toml.
    Case("a variable that is no switch", NEEDED, 2, "TUNER_QUIET is 'maybe'; write true or false.",
         env={"TUNER_QUIET": "maybe"}),
    Case("a variable that is no number", NEEDED, 2, "TUNER_WORKERS is 'x'; give a whole number",
         env={"TUNER_WORKERS": "x"}),
    Case("a storage that is no URL", INLINE, 2, "'nonsense' is not a database URL",
         env={"OPTUNA_STORAGE": "nonsense"}),
    Case("a file that is no TOML", NEEDED, 2, "tuner.toml is no TOML: ", config="workers: 3\n",
         process=True),
    Case("an unknown key", NEEDED, 2, "did you mean 'storage'?", config="storrage = 'x'\n"),
    Case("a value of another type", NEEDED, 2, "workers in tuner.toml is '4 or 5'; give a whole",
         config='workers = "4 or 5"\n'),
    Case("a password in the file", INLINE, 2, "is not a database URL", process=True,
         config='storage = "postgresql:/me:s3cr3t@db:many/x"\n'),
    # Study files.
    Case("an unknown study", ("--study", "mnsit", "--trials", "3"), 2, "did you mean 'mnist'?",
         prepare=lambda here: (here / "studies").symlink_to(ROOT / "studies")),
    Case("a file that is not there", ("--study", "x.py", "--trials", "3"), 2,
         "There is no study file x.py; check the path."),
    Case("a folder as a file", STUDY, 2, "There is no study file study.py", prepare=_folder_of_py),
    Case("a file that is no Python", STUDY, 2, "study.py cannot be loaded", study=b"\xff\xfe\x00"),
    Case("a syntax error", BY_WORKER, 2, "line 1: SyntaxError", study="def objective(trial:\n",
         process=True),
    Case("a module that is missing", BY_WORKER, 2, "line 1: ModuleNotFoundError: No module",
         study="import torchvisoin\n" + GOOD, process=True),
    Case("an error while it is loaded", STUDY, 2, "line 3: KeyError: 'no such thing'",
         study="x = 1\n\nraise KeyError('no such thing')\n"),
    Case("a file that ends its process", BY_WORKER, 4, "code 7); the last one wrote: bye",
         study="import os\nprint('bye', flush=True)\nos._exit(7)\n", process=True),
    Case("no objective", STUDY, 2, "no function objective(trial); it has 'objectiv'",
         study="def objectiv(trial): return 1\n"),
    Case("an objective that returns nothing", BY_WORKER, 4, "the objective returned None",
         study="def objective(trial): trial.suggest_float('x', 0, 1)\n", leaves=TRIALS_RAN,
         process=True),
    Case("an objective that returns a text", STUDY, 4, "the objective returned 'good'",
         study="def objective(trial): return 'good'\n", leaves=TRIALS_RAN),
    Case("an objective that returns NaN", STUDY, 4, "the objective returned nan",
         study="def objective(trial): return float('nan')\n", leaves=TRIALS_RAN, process=True),
    Case("an objective that raises", STUDY, 4, "ValueError: no good",
         study="def objective(trial): raise ValueError('no good')\n", leaves=TRIALS_RAN),
    Case("a parameter with a slip", STUDY, 4, "KeyError: 'rate'", leaves=TRIALS_RAN,
         study="from optuna.distributions import FloatDistribution\n"
               "space = {'raet': FloatDistribution(0, 1)}\n"
               "def objective(trial): return trial.params['rate']\n"),
    Case("a space with a slip", STUDY, 2, "has the name 'spaec'; did you mean 'space'?",
         study="from optuna.distributions import FloatDistribution\n"
               "spaec = {'rate': FloatDistribution(0, 1)}\n" + GOOD),
    Case("a space of ranges", STUDY, 2, "maps 'x' to (0, 1); it takes an Optuna distribution",
         study="space = {'x': (0, 1)}\n" + GOOD),
    Case("a range upside down", BY_WORKER, 2, "line 2: ValueError: `low <= high` must hold",
         study="from optuna.distributions import FloatDistribution\n"
               "space = {'x': FloatDistribution(1, 0)}\n" + GOOD, process=True),
    Case("a footprint that is none", (*STUDY, "--dry-run"), 2, "footprint() in study.py returned 5",
         study=GOOD + "def footprint(): return 5\n"),
    Case("two studies in a file", STUDY, 2, "defines objective more than once (lines 1 and 3)",
         study=GOOD + GOOD),
    Case("a preparation that fails", BY_WORKER, 2, "prepare() in study.py failed: line 4: OSError",
         study=GOOD + "def prepare():\n    raise OSError('no data')\n", leaves=TRIALS_RAN,
         process=True),
    Case("another space than the study's", INLINE, 2, "was begun with another definition: x is Fl",
         prepare=_other_space),
    # Databases.
    Case("a server that is not there", NEEDED, 3, "Connection refused", process=True,
         env={"OPTUNA_STORAGE": "postgresql://me:s3cr3t@127.0.0.1:1/x"}),
    Case("a database that no disk takes", INLINE, 3, "cannot be used: File name too long",
         env={"OPTUNA_STORAGE": f"sqlite:///{'x' * 300}.db"}),
    Case("a host that is not there", INLINE, 3, "cannot be used",
         env={"OPTUNA_STORAGE": "mysql://me:s3cr3t@no-such-host.invalid/x"}),
    Case("a wrong password", NEEDED, 3, "Access denied for user", process=True,
         env={"OPTUNA_STORAGE": "mysql://root:s3cr3t@127.0.0.1/test"}),
    Case("braces and per cent in the password", NEEDED, 3, "Access denied for user", process=True,
         env={"OPTUNA_STORAGE": "mysql://root:s3cr3t{}%25{x}@127.0.0.1/test"}),
    Case("a database that the server has not", INLINE, 3, 'database "no_such_thing" does not exist',
         env={"OPTUNA_STORAGE": "postgresql://root@127.0.0.1/no_such_thing"}),
    Case("another kind of database", INLINE, 2, "names the database 'oracle', which is not support",
         env={"OPTUNA_STORAGE": "oracle://me:s3cr3t@db/x"}),
    Case("a database in memory", INLINE, 2, "is a database in memory",
         env={"OPTUNA_STORAGE": "sqlite://"}),
    Case("a folder as a database", INLINE, 3, "is a directory; name a file in it",
         env={"OPTUNA_STORAGE": "sqlite:////"}),
    Case("a database in a folder that is not there", INLINE, 3, "There is no directory {here}/no",
         env={"OPTUNA_STORAGE": "sqlite:///no/tuner.db"}),
    Case("a database where nothing can be written", NEEDED, 3, "unable to open database file",
         env={"OPTUNA_STORAGE": "sqlite:////sys/tuner.db"}, process=True),
    Case("a server that may only be read", NEEDED, 3, "read-only transaction", process=True,
         env={"OPTUNA_STORAGE": "{read only}"}),
    Case("a file that is no database", NEEDED, 3, "file is not a database", prepare=_notes,
         env={"OPTUNA_STORAGE": "sqlite:///notes.txt"}, process=True),
    Case("the tables of another program", INLINE, 3, "tables of another program (invoices)",
         env={"OPTUNA_STORAGE": "sqlite:///shop.db"}, prepare=_foreign),
    Case("another version of the tables", NEEDED, 3, "optuna storage upgrade", prepare=_older,
         env={"OPTUNA_STORAGE": "sqlite:///older.db"}, process=True),
    # The dashboard.
    Case("other machines without a word", ("--host", "0.0.0.0"), 2,
         "--host 0.0.0.0 lets other machines in, and there is no password", command="dashboard"),
    Case("notes from other machines", ("--allow-remote", "--writable"), 2,
         "what they can reach stays read-only", command="dashboard"),
    Case("no name of a host", ("--host", "no such host"), 2, "is 'no such host', which is no addr",
         command="dashboard"),
    Case("an address of another machine", ("--host", "203.0.113.1", "--allow-remote"), 2,
         "Nothing can listen at 203.0.113.1, port 8080", command="dashboard"),
    Case("no such port", ("--port", "70000"), 2, "give a whole number up to 65535",
         command="dashboard"),
    Case("a dashboard of another program's tables", (), 3, "tables of another program (invoices)",
         command="dashboard", env={"OPTUNA_STORAGE": "sqlite:///shop.db"}, prepare=_foreign),
    # Disks.
    Case("a full disk", ("--study", "good.py", "--trials", "500", "--workers", "1"), 3,
         "database or disk is full", prepare=_full, env={"PYTHONPATH": f"{{here}}/full:{ROOT}"},
         leaves=("tuner.db-wal", "tuner.db-shm"), process=True),
    Case("a cache that can only be read", BY_WORKER, 2, "The pretrained base cannot be kept in",
         study=DIGITS, env={"TUNER_CACHE_DIR": "/sys/cache"}, leaves=TRIALS_RAN, process=True),
    Case("a base that was cut", BY_WORKER, 0, "is damaged", study=DIGITS, prepare=_cut_base,
         env={"TUNER_CACHE_DIR": "{here}/cache"}, leaves=TRIALS_RAN, process=True),
)  # fmt: skip


@contextlib.contextmanager
def placed(case: Case, folder: Path) -> Iterator[Case]:
    """The case with its folder, and its server where it needs one, filled in."""
    with contextlib.ExitStack() as stack:
        env = {name: value.replace("{here}", str(folder)) for name, value in case.env.items()}
        if "{read only}" in env.values():
            read_only = "ALTER DATABASE {name} SET default_transaction_read_only = on"
            env["OPTUNA_STORAGE"] = stack.enter_context(server_database("postgresql", read_only))
        says = case.says.replace("{here}", str(folder))
        yield dataclasses.replace(case, env=env, says=says)


def main() -> None:
    """Print the table."""
    click.echo("| what is wrong | exit | what is said |\n|---|---|---|")
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder, placed(case, Path(folder)) as ready:
            found = outcome_of(ready, Path(folder))
            said = found.err if ready.code else found.out
            line = next((it for it in said.splitlines() if ready.says in it), said)
            line = line.removeprefix("error: ").replace(folder, "...").replace("|", "\\|")
            click.echo(f"| {case.name} | {found.code} | {line} |")


if __name__ == "__main__":
    main()
