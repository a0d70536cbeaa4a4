"""Workers on a Ray cluster, an actor each: where they run, and on which CPUs and GPUs, Ray decides.

An actor holds a local engine with one worker, which is a process of its own on the actor's node::

    us <─ Ray ─> actor <─ pipes ─> worker process ─> SQL database

So a worker is the same everywhere, and an objective that holds the GIL or dies leaves its actor
able to answer. The actor is asked again and again what has happened. When it, or its node, dies,
Ray says so instead of an answer: that is the death of its worker.

The study file travels with what lies beside it, and with this package, by Ray's runtime
environment; everything else that they import must be on the nodes. The environment variables that
a study reads are those of the node.
"""

import itertools
import logging
import os
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

# Ray reports how it is used to its makers unless it is told not to, and prints what its own
# processes have to say of deaths, which we say ourselves.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")

import ray
import ray.exceptions
import ray.util

import tuner
from tuner import wording
from tuner.artifacts import BUCKET_SCHEME
from tuner.engines.interface import Event, Gone, Loaded, LogLine, Refused, WorkerState
from tuner.engines.local import LocalEngine
from tuner.errors import TunerError, UsageError
from tuner.flags import FILE, PASSWORD_FILE_VARIABLE
from tuner.settings import RAY_CLIENT, RayPlace
from tuner.storage import Owner
from tuner.work import OUT_OF_MEMORY, Assignment

# An actor answers after so long when nothing happens, in seconds: what it is told waits as long.
POLL_SECONDS = 0.3
# A worker that Ray has not placed after so long is worth a sentence, in seconds.
PLACE_SECONDS = 10.0
# An actor has so long to end its worker, in seconds; then Ray ends the actor.
KILL_SECONDS = 2.0
# A cluster answers within so long, in seconds; Ray itself would try for many minutes.
CONNECT_SECONDS = 5.0
# The cluster's head is looked for this often, in seconds.
HEAD_LOOK_SECONDS = 5.0
# One that is not found so often in a row ends the command; after 60 s Ray would end the process.
MOST_FAILED_LOOKS = 6
# What Ray carries of a folder, in MB: half a GB, and its own part.
MOST_MEGABYTES = 500

# Of an error of Ray's so much is shown, in characters.
LONGEST_ERROR = 300

# What may lie beside a study file and is none of its business, or has passwords.
_LEFT_BEHIND = (
    ".*", "__pycache__", "tuner.db*", "tuner-artifacts", "report-*.html", str(FILE),
)  # fmt: skip

PLACING = "waiting for a place"
NODE_DIED = "its node has died"  # how Ray says it of an actor
LOST = "lost with its Ray actor or node"
ARTIFACTS_APART = "artifacts apart"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Report:
    """An actor's answer.

    Attributes:
        owner: its worker process; None when it has ended.
        state: what that does; its times are ages in seconds, for the clock is another one.
        events: what happened since the answer before.
    """

    owner: Owner | None
    state: WorkerState | None
    events: list[Event]


class _Host:
    """The actor: one worker of a local engine, on some node."""

    def __init__(  # noqa: PLR0913, PLR0917 - what a local engine takes
        self,
        study_file: str,
        storage: str,
        supervisor: Owner,
        number: int,
        variables: Mapping[str, str],
        log_level: int,
    ) -> None:
        logging.getLogger("tuner").setLevel(log_level)
        self._engine = LocalEngine(
            Path(study_file),
            storage,
            replace(supervisor, host=socket.gethostname()),
            workers=1,
            first=number,
            variables=variables,
            guarded=True,  # Ray kills an actor and its children at once
        )

    def start(self) -> _Report:
        self._engine.start()
        return self._report([])

    def assign(self, assignment: Assignment) -> None:
        self._engine.assign(assignment)

    def poll(self, seconds: float) -> _Report:
        return self._report(self._engine.poll(seconds))

    def drain(self) -> None:
        self._engine.drain()

    def kill(self) -> None:
        self._engine.kill()

    def _report(self, events: list[Event]) -> _Report:
        owner = next(iter(self._engine.owners), None)
        state = next(iter(self._engine.workers), None)
        return _Report(owner, None if state is None else _by_another_clock(state), events)


def _continued(before: WorkerState, state: WorkerState) -> WorkerState:
    """A state as it was told, since when it was first told: messages take longer or shorter."""
    same = (before.pid, before.doing) == (state.pid, state.doing)
    return replace(state, since=before.since) if same else state


def _by_another_clock(state: WorkerState) -> WorkerState:
    """From times of this process's clock to ages, and back in another process."""
    now = time.monotonic()
    return replace(state, since=now - state.since, told=now - state.told)


@dataclass
class _Placed:
    """An actor, or one that Ray has yet to place.

    Attributes:
        reply: the answer that is due.
        owner: its worker, as of the last answer; None before the first.
    """

    number: int
    actor: Any
    reply: Any
    state: WorkerState
    owner: Owner | None = None


class RayEngine:
    """See `tuner.engines.interface.Engine`.

    Args:
        study_file: what each worker loads; it is here, and need not be on the nodes.
        storage: the database's URL, with its password.
        supervisor: this process.
        place: the cluster, and what of it a worker takes.
        workers: how many actors.
        variables: environment variables that each worker gets.
        artifacts: the address of the artifact store.
    """

    def __init__(  # noqa: PLR0913 - each is something else
        self,
        study_file: Path,
        storage: str,
        supervisor: Owner,
        *,
        place: RayPlace,
        workers: int,
        variables: Mapping[str, str],
        artifacts: str,
    ) -> None:
        self._study_file = study_file
        self._storage = storage
        self._supervisor = supervisor
        self._place = place
        self._variables = variables
        self._artifacts = artifacts
        self._actors: Any = ray.remote(_Host)
        self._wanted = list(range(1, workers + 1))  # numbers of workers that Ray has yet to be told
        self._placed: list[_Placed] = []
        self._to_say: list[Event] = []
        self._heard: set[str] = set()
        self._assignment: Assignment | None = None
        self._there = ""  # the study file, on a node
        self._connected = threading.Event()
        self._refusal: UsageError | None = None
        self._head = ""  # its address
        self._failed_looks = 0  # for it, one after another
        self._deaf: OSError | None = None  # why the last one failed

    def start(self) -> None:
        """Begin to connect to the cluster; then it is asked for the workers."""
        # In a thread: it may take a minute, and Ray would take our signals in the main one.
        threading.Thread(target=self._connect, daemon=True).start()

    def _connect(self) -> None:
        try:
            with tempfile.TemporaryDirectory() as folder:
                self._there = _stage(self._study_file, Path(folder))
                _join(self._place, folder)
            self._check_nodes()
            self._head = self._place.address if self._place.is_remote else _gcs_address()
        except UsageError as error:
            self._refusal = error
        except Exception as error:  # noqa: BLE001 - Ray raises many kinds, in this thread
            self._refusal = UsageError(
                f"Ray cannot be used: {type(error).__name__}: {_brief(error)}"
            )
        self._connected.set()
        # For ever: processes of a cluster that is ours alone die with the thread that started them.
        while True:
            time.sleep(HEAD_LOOK_SECONDS)
            if self._refusal is None:
                self._failed_looks = 0 if self._head_answers() else self._failed_looks + 1

    def assign(self, assignment: Assignment) -> None:
        """Let the workers take trials of a study."""
        self._assignment = assignment
        for placed in self._placed:
            if placed.owner is not None:
                placed.actor.assign.remote(assignment)

    def poll(self, seconds: float) -> list[Event]:
        """What happened, after waiting at most ``seconds`` for something to happen."""
        if not self._connected.wait(seconds):
            return []
        if self._refusal is not None:
            return [Refused(self._refusal)]
        if self._wanted and self._head_answers():  # else Ray would wait for it, and we too
            for number in self._wanted:
                self._ask_for(number)
            self._wanted.clear()
        events, self._to_say = self._to_say, []
        end = time.monotonic() + seconds
        while not events and (left := end - time.monotonic()) > 0:
            replies = [placed.reply for placed in self._placed]
            if not replies:
                time.sleep(left)
                break
            ready, _ = ray.wait(replies, timeout=left)
            for placed in [it for it in self._placed if it.reply in ready]:
                events += self._hear(placed)
        return [*events, *self._mind_head(), *self._mind_unplaced()]

    def _hear(self, placed: _Placed) -> list[Event]:
        """An actor has answered, or died."""
        try:
            report: _Report = ray.get(placed.reply)
        except (ray.exceptions.RayError, ConnectionError) as error:
            self._remove(placed)
            return [self._death_of(placed, error)]
        is_new = placed.owner is None
        if is_new and report.owner is not None and report.owner.host != socket.gethostname():
            try:  # its machine may have joined the cluster since we looked
                self._check_others("another machine")
            except UsageError as error:
                return [Refused(error)]
        if report.owner is None or report.state is None:
            self._remove(placed)
        else:
            placed.owner = report.owner
            placed.state = _continued(placed.state, _by_another_clock(report.state))
            if is_new and self._assignment is not None:
                placed.actor.assign.remote(self._assignment)
            placed.reply = placed.actor.poll.remote(POLL_SECONDS)
        return [event for it in report.events if (event := self._understand(it)) is not None]

    def _death_of(self, placed: _Placed, error: Exception) -> Event:
        """What an error instead of an answer means."""
        if placed.owner is None:
            nobody, said = self._supervisor.worker(0), str(error)
            lost = isinstance(error, ray.exceptions.NodeDiedError) or NODE_DIED in said
            return Gone(
                nobody, "could not be started by Ray", said.splitlines(), with_its_node=lost
            )
        if isinstance(error, ray.exceptions.OutOfMemoryError):
            return Gone(placed.owner, OUT_OF_MEMORY, [])
        if isinstance(error, ray.exceptions.RayTaskError):
            return Gone(placed.owner, "failed in its Ray actor", str(error).splitlines())
        logger.debug("worker %d %s: %s", placed.owner.pid, LOST, error)
        return Gone(placed.owner, LOST, [], with_its_node=True)

    def _understand(self, event: Event) -> Event | None:
        """An event as it is told here: once what is to be said once, and by our name for files."""
        if isinstance(event, LogLine) and event.once is not None:
            heard = event.once in self._heard
            self._heard.add(event.once)
            return None if heard else event
        if isinstance(event, Loaded):
            return Loaded(replace(event.snapshot, file=str(self._study_file)))
        return event

    def replace(self) -> None:
        """Ask for a worker in the place of one that is gone."""
        taken = {*self._wanted, *(placed.number for placed in self._placed)}
        self._wanted.append(next(it for it in itertools.count(1) if it not in taken))

    def drain(self) -> None:
        """Ask every worker to hand its trial back and end."""
        self._wanted.clear()
        for placed in list(self._placed):
            if placed.owner is None:
                self._remove(placed)
            else:
                placed.actor.drain.remote()

    def kill(self) -> None:
        """End every worker, and what it started, at once."""
        ends = [placed.actor.kill.remote() for placed in self._placed if placed.owner is not None]
        if ends:
            ray.wait(ends, num_returns=len(ends), timeout=KILL_SECONDS)
        for placed in list(self._placed):
            self._remove(placed)  # no answer need come from a cluster that is gone
        self._wanted.clear()

    @property
    def alive(self) -> int:
        """How many workers have not ended."""
        return len(self._placed) + len(self._wanted)

    @property
    def workers(self) -> list[WorkerState]:
        """What each of them does."""
        return sorted((placed.state for placed in self._placed), key=lambda state: state.number)

    def _ask_for(self, number: int) -> None:
        actor: Any = self._actors.options(
            num_cpus=self._place.cpus, num_gpus=self._place.gpus
        ).remote(
            self._there,
            self._storage,  # by Ray's own channel, as the pipe of a local worker
            self._supervisor,
            number,
            self._variables,
            logging.getLogger("tuner").getEffectiveLevel(),
        )
        state = WorkerState(number, 0, PLACING, None, time.monotonic())
        self._placed.append(_Placed(number, actor, actor.start.remote(), state))

    def _remove(self, placed: _Placed) -> None:
        self._placed.remove(placed)
        ray.kill(placed.actor)

    def _mind_unplaced(self) -> list[Event]:
        """Say once that workers do not start; the cluster may have no room for all."""
        limit = time.monotonic() - PLACE_SECONDS
        late = [it for it in self._placed if it.owner is None and it.state.since < limit]
        if not late or PLACING in self._heard:
            return []
        if not self._head_answers():
            return []  # Ray would ask it for a minute
        self._heard.add(PLACING)
        free, there = ray.available_resources(), ray.cluster_resources()
        kinds = ["CPU", "GPU"] if self._place.gpus else ["CPU"]
        room = " and ".join(f"{free.get(it, 0):g} of {there.get(it, 0):g} {it}s" for it in kinds)
        needs = f"{self._place.cpus:g} CPU" + (f" and {self._place.gpus:g} GPU" * (len(kinds) > 1))
        has = "has" if len(late) == 1 else "have"
        return [
            LogLine(
                f"{wording.count(len(late), 'worker')} {has} not started after "
                f"{PLACE_SECONDS:g} s: each needs {needs}, and {room} of the Ray cluster are free; "
                "if it has no room for them, give less --cpus-per-worker, or fewer --workers."
            )
        ]

    def _mind_head(self) -> list[Event]:
        """Give up a cluster whose head is gone, before Ray ends this process without a word."""
        error = self._deaf
        if self._failed_looks < MOST_FAILED_LOOKS or error is None:
            return []
        seconds = MOST_FAILED_LOOKS * HEAD_LOOK_SECONDS
        return [
            Refused(
                TunerError(
                    f"The head of the Ray cluster, {self._head}, has not answered for "
                    f"{seconds:g} s: {_brief(error)} Start the cluster again, and the same command "
                    "goes on."
                )
            )
        ]

    def _head_answers(self) -> bool:
        """Whether it does; only the thread that connected asks one again that did not."""
        if self._deaf is not None and threading.current_thread() is threading.main_thread():
            return False
        try:
            _knock(self._head)
        except OSError as error:
            self._deaf = error
        else:
            self._deaf = None
        return self._deaf is None

    def _check_nodes(self) -> None:
        """Look whether workers could be on other machines; see `_check_others`."""
        addresses = {node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
        here = None if self._place.is_remote else ray.util.get_node_ip_address()
        others = len(addresses - {here})
        if others:
            self._check_others(wording.count(others, "other machine"))

    def _check_others(self, machines: str) -> None:
        """Say once what is not shared with other machines of the cluster.

        Raises:
            UsageError: the database, which is a file of this one.
        """
        if self._storage.startswith("sqlite"):
            raise UsageError(
                f"The database is a SQLite file of this machine, and the Ray cluster has "
                f"{machines}; name a server with --storage postgresql://USER@HOST/NAME."
            )
        if not self._artifacts.startswith(BUCKET_SCHEME) and ARTIFACTS_APART not in self._heard:
            self._heard.add(ARTIFACTS_APART)
            self._to_say.append(
                LogLine(
                    f"the Ray cluster has {machines}, and the artifact store is the folder "
                    f"{self._artifacts}: unless all share it, a trial that one of them began "
                    "starts over on another; s3://BUCKET/PREFIX is shared by all."
                )
            )


def _join(place: RayPlace, folder: str) -> None:
    """Connect this process to a cluster; what is in the folder travels with it.

    Raises:
        UsageError: there is none, or it refuses us.
    """
    environment = {
        "working_dir": folder,
        "py_modules": [str(Path(tuner.__file__).parent)],
        "excludes": ["__pycache__"],
    }
    # The cluster of `local` is for this command alone; its objects are a few messages.
    own: dict[str, Any] = {}
    if place.address == "local":
        own = {"include_dashboard": False, "object_store_memory": 100_000_000}
    try:
        _knock(place.address)
    except OSError as error:
        raise UsageError(
            f"There is no Ray cluster at {place.named}: {_brief(error)} {_START}"
        ) from error
    try:
        ray.init(
            address=place.address,
            runtime_env=environment,
            log_to_driver=False,
            logging_level=logging.ERROR,
            **own,
        )
    except ConnectionError as error:
        raise UsageError(
            f"Ray cannot connect to {place.named}: {_brief(error)} {_START}"
        ) from error
    except (ray.exceptions.RayError, RuntimeError, ValueError, OSError) as error:
        raise UsageError(
            f"The Ray cluster at {place.named} does not take this study: {_brief(error)}"
        ) from error


_START = (
    "Start a cluster with `ray start --head`, or let this machine join it with `ray start "
    "--address HOST:PORT`; name it as ray://HOST:10001 where this machine is not to join; or let "
    "the command have one of its own with --ray-address local. A cluster that asks for a token "
    "needs RAY_AUTH_MODE=token here."
)


def _gcs_address() -> str:
    """Where the cluster's head listens."""
    return str(ray.get_runtime_context().gcs_address)


def _knock(address: str) -> None:
    """Look whether anybody listens at ``HOST:PORT`` or ``ray://HOST:PORT``.

    Raises:
        OSError: nobody does.
    """
    host, _, port = address.removeprefix(RAY_CLIENT).rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), CONNECT_SECONDS).close()


def _stage(study_file: Path, folder: Path) -> str:
    """Copy a study file, and what lies beside it, to a folder that travels.

    Returns:
        The file's path in it: as it was given, if it lies below the current directory.

    Raises:
        UsageError: it is more than Ray carries.
    """
    here, file = Path.cwd(), Path(os.path.abspath(study_file))  # noqa: PTH100 - without any ".."
    there = file.relative_to(here) if file.is_relative_to(here) else Path(file.name)
    try:
        megabytes = _megabytes(file.parent)
        if megabytes > MOST_MEGABYTES:
            raise UsageError(
                f"What lies beside {study_file} has {megabytes:,.0f} MB, and Ray carries at most "
                f"{MOST_MEGABYTES} to its nodes; put the study file into a folder of its own, and "
                "its data where every node reads them."
            )
        shutil.copytree(file.parent, folder / there.parent, ignore=_left_behind, dirs_exist_ok=True)
    except OSError as error:
        several = error.args[0] if isinstance(error, shutil.Error) else None
        reason = several[0][-1] if several else error
        raise UsageError(
            f"What lies beside {study_file} cannot be copied to travel with it: {reason}; put the "
            "study file into a folder of its own."
        ) from error
    return str(there)


def _left_behind(folder: str, names: list[str]) -> set[str]:
    """Those names in a folder that do not travel; of sockets and pipes there is nothing to copy."""
    secret = os.environ.get(PASSWORD_FILE_VARIABLE, "")
    paths = ((name, os.path.join(folder, name)) for name in names)  # noqa: PTH118 - as copytree
    return shutil.ignore_patterns(*_LEFT_BEHIND)(folder, names) | {
        name
        for name, path in paths
        if not (os.path.isfile(path) or os.path.isdir(path))  # noqa: PTH112, PTH113 - raise nothing
        or (secret and os.path.exists(secret) and os.path.samefile(path, secret))  # noqa: PTH110, PTH121
    }


def _megabytes(folder: Path) -> float:
    """What would be copied of a folder."""
    total = 0.0
    for root, folders, files in os.walk(folder, followlinks=True):
        left = _left_behind(root, [*folders, *files])
        folders[:] = [name for name in folders if name not in left]
        total += sum((Path(root) / name).stat().st_size for name in set(files) - left) / 1e6
    return total


def _brief(error: BaseException) -> str:
    """An error of Ray's in a line of bounded length."""
    text = " ".join(str(getattr(error, "strerror", None) or error).split())
    return (text if len(text) <= LONGEST_ERROR else f"{text[:LONGEST_ERROR]}...").rstrip(".") + "."
