"""Both engines, for tests that ask the same of each: local processes, and a real Ray cluster."""

import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from tests.conftest import ENVIRONMENT, free_port, start, wait_until

ENGINES = ("local", "ray")
CPUS = 2  # of the cluster
# Three workers find room in it.
CPUS_A_WORKER = "0.5"
# A cluster begun after one of `--ray-address local` would want the token that this one has left.
OPEN = {"RAY_AUTH_MODE": "disabled"}


def workers_of(process: "subprocess.Popen[str]") -> list[psutil.Process]:
    """A command's local workers, and what they have started."""
    return psutil.Process(process.pid).children(recursive=True)


@dataclass(frozen=True)
class Engine:
    """An engine as a command is told of it.

    Attributes:
        flags: of the command.
        env: its environment variables, besides.
        cluster: what all its workers descend from; None: from the command itself.
    """

    flags: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    cluster: psutil.Process | None = None

    def start(
        self, study: str, trials: int, workers: int, url: str, *more: str
    ) -> "subprocess.Popen[str]":
        """Start ``python -m tuner.run`` with this engine."""
        return start(
            *("--study", study, "--trials", str(trials), "--workers", str(workers)),
            *("--storage", url, *self.flags, *more),
            **self.env,
        )

    def run(
        self, study: str, trials: int, workers: int, url: str, *more: str
    ) -> "subprocess.CompletedProcess[str]":
        """The same, to its end."""
        with self.start(study, trials, workers, url, *more) as process:
            out, err = process.communicate(timeout=300)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def family_of(self, process: "subprocess.Popen[str]") -> list[psutil.Process]:
        """The worker processes, and what they have started."""
        if self.cluster is None:
            return workers_of(process)
        found = []
        for one in self.cluster.children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if any("tuner.engines.child" in word for word in one.cmdline()):
                    found += [one, *one.children(recursive=True)]
        return found


@contextlib.contextmanager
def ray_cluster(cpus: int = CPUS) -> Iterator[tuple[Engine, str]]:
    """A cluster of this machine, which ends with the block; its GPU is one in name only.

    Yields:
        The engine on it, and its address.
    """
    address = f"127.0.0.1:{free_port()}"
    flags = ("--engine", "ray", "--ray-address", address, "--cpus-per-worker", CPUS_A_WORKER)
    with (
        # Short: it has sockets.
        tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder,
        ray_node(
            "--head", f"--port={address.rpartition(':')[2]}", "--include-dashboard=false",
            f"--temp-dir={folder}", f"--num-cpus={cpus}", "--num-gpus=1",
        ) as process,
    ):  # fmt: skip
        yield Engine(flags, OPEN, process), address


@contextlib.contextmanager
def ray_node(*flags: str) -> Iterator[psutil.Process]:
    """A node of a cluster, which ends with the block."""
    command = [
        str(Path(sys.executable).parent / "ray"), "start", *flags, "--disable-usage-stats",
        "--block",
    ]  # fmt: skip
    with tempfile.NamedTemporaryFile(prefix="ray", suffix=".log") as out:
        log = Path(out.name)
        process = psutil.Popen(
            command, env={**ENVIRONMENT, **OPEN}, stdout=out, stderr=out, start_new_session=True
        )
        try:
            wait_until(
                lambda: "Ray runtime started" in log.read_text() or process.poll() is not None
            )
            assert process.poll() is None, log.read_text()
            yield psutil.Process(process.pid)
        finally:
            family = []
            with contextlib.suppress(psutil.NoSuchProcess):
                family = process.children(recursive=True)
                process.terminate()
            process.wait(20)
            for one in family:
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.kill()


def both(test: Callable[..., None]) -> Callable[..., None]:
    """Run a test on each engine; it has the fixture ``engine``."""
    return pytest.mark.parametrize("engine", ENGINES, indirect=True)(test)
