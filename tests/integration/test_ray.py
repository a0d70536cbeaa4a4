"""What the Ray engine decides by itself: what travels, and which clusters it takes."""

import os
import socket
import time
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import ray
import ray.exceptions
import ray.util

from tests.conftest import free_port, wait_until
from tuner.engines import ray as on_ray
from tuner.engines.interface import Event, Gone, LogLine, Refused, WorkerState
from tuner.errors import UsageError
from tuner.settings import RayPlace
from tuner.storage import this_process


def connected(engine: on_ray.RayEngine) -> on_ray.RayEngine:
    """An engine that has checked its cluster, and asked it for nothing."""
    engine._check_nodes()
    engine._connected.set()
    engine._wanted.clear()
    return engine


def engine_of(storage: str, artifacts: str, address: str = "auto") -> on_ray.RayEngine:
    return on_ray.RayEngine(
        Path("study.py"), storage, this_process(), workers=1,
        place=RayPlace(address, address, 1, 0), variables={}, artifacts=artifacts,
    )  # fmt: skip


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Those of a cluster, of which this machine is one."""
    found = [{"NodeManagerAddress": "10.0.0.1", "Alive": True}]
    monkeypatch.setattr(ray, "nodes", lambda: found)
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "10.0.0.1")
    return found


def test_a_sqlite_file_is_for_a_cluster_of_this_machine(nodes: list[dict[str, Any]]) -> None:
    nodes.append({"NodeManagerAddress": "10.0.0.2", "Alive": False})
    alone = engine_of("sqlite:////here/tuner.db", "/here/artifacts")
    assert connected(alone).poll(0) == []
    nodes.append({"NodeManagerAddress": "10.0.0.3", "Alive": True})
    with pytest.raises(UsageError, match="the Ray cluster has 1 other machine; name a server"):
        alone._check_nodes()
    with pytest.raises(UsageError, match="the Ray cluster has 2 other machines"):
        engine_of("sqlite:////here/tuner.db", "/here", "ray://10.0.0.1:1")._check_nodes()


def test_an_artifact_store_that_is_a_folder_is_told_of(nodes: list[dict[str, Any]]) -> None:
    nodes.append({"NodeManagerAddress": "10.0.0.3", "Alive": True})
    (line,) = connected(engine_of("postgresql://db/x", "/here/artifacts")).poll(0)
    assert isinstance(line, LogLine)
    assert "the artifact store is the folder /here/artifacts: unless all share it" in line.text
    assert connected(engine_of("postgresql://db/x", "s3://bucket/x")).poll(0) == []


def test_a_machine_that_joins_the_cluster_later(nodes: list[dict[str, Any]]) -> None:
    owner = replace(this_process(), host="joined-later")
    state = WorkerState(1, 7, "loading", None, 0.0, 0.0)
    actor = Mock()

    def hear(storage: str, artifacts: str) -> list[Event]:
        engine = connected(engine_of(storage, artifacts))
        placed = on_ray._Placed(1, actor, on_ray._Report(owner, state, []), state)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ray, "get", lambda reply: reply)
            return [*engine._hear(placed), *engine.poll(0)]

    (refused,) = hear("sqlite:////here/tuner.db", "s3://bucket/x")
    assert isinstance(refused, Refused)
    assert "SQLite file of this machine, and the Ray cluster has another machine;" in str(
        refused.error
    )
    assert not actor.method_calls  # it has got nothing to do
    (line,) = hear("postgresql://db/x", "/here/artifacts")
    assert isinstance(line, LogLine)
    assert "has another machine, and the artifact store is the folder" in line.text
    assert hear("postgresql://db/x", "s3://bucket/x") == []
    assert len(actor.poll.remote.mock_calls) == 2


def test_a_head_that_is_gone_ends_the_command_and_a_short_pause_does_not(
    nodes: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_ray, "HEAD_LOOK_SECONDS", 0.1)
    monkeypatch.setattr(on_ray, "_stage", lambda *_: "study.py")
    monkeypatch.setattr(on_ray, "_join", lambda *_: None)
    engine = engine_of("postgresql://db/x", "s3://bucket/x")
    engine.drain()  # it is asked for no worker
    port = free_port()
    monkeypatch.setattr(on_ray, "_gcs_address", lambda: f"127.0.0.1:{port}")

    def events_in(seconds: float) -> list[Event]:
        end = time.monotonic() + seconds
        while not (found := engine.poll(0.01)) and time.monotonic() < end:
            pass
        return found

    with socket.create_server(("127.0.0.1", port)):
        engine.start()
        assert events_in(0.5) == []
    wait_until(lambda: engine._failed_looks > 1, seconds=5)
    with socket.create_server(("127.0.0.1", port)):
        wait_until(lambda: engine._failed_looks == 0, seconds=5)
        assert events_in(0.5) == []
    (refused,) = events_in(10)
    assert isinstance(refused, Refused)
    assert str(refused.error) == (
        f"The head of the Ray cluster, 127.0.0.1:{port}, has not answered for 0.6 s: Connection "
        "refused. Start the cluster again, and the same command goes on."
    )
    assert not engine._head_answers()  # and this thread does not knock again


def test_what_travels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project, there = tmp_path / "project", tmp_path / "there"
    studies = project / "studies"
    for folder in (studies / "data", studies / "__pycache__", studies / ".git", there):
        folder.mkdir(parents=True)
    for name in ("a.py", "data/x.npz", "labels.db", "tuner.db", "tuner.db-wal", "tuner.toml",
                 "password", "__pycache__/a.pyc", ".git/y"):  # fmt: skip
        (studies / name).write_text("x")
    (far := tmp_path / "far").mkdir()
    (far / "y.npz").write_text("x" * 10)
    (studies / "linked").symlink_to(far)
    (studies / "gone").symlink_to(tmp_path / "nothing")
    monkeypatch.setenv("TUNER_STORAGE_PASSWORD_FILE", str(studies / "password"))
    (project / "big.bin").write_text("x")
    os.mkfifo(studies / "pipe")  # of which there is nothing to copy
    monkeypatch.chdir(project)

    def travelled() -> set[str]:
        return {str(it.relative_to(there)) for it in there.rglob("*") if it.is_file()}

    assert on_ray._stage(Path("studies/a.py"), there) == "studies/a.py"
    expected = {"a.py", "labels.db", "data/x.npz", "linked/y.npz"}
    assert travelled() == {f"studies/{name}" for name in expected}
    monkeypatch.chdir(studies)
    assert on_ray._stage(Path("../studies/a.py"), there) == "a.py"  # nothing outside the folder
    assert not (tmp_path / "studies").exists()
    monkeypatch.chdir(project)
    assert on_ray._stage(studies / "a.py", there) == "studies/a.py"
    monkeypatch.chdir(tmp_path / "there")
    assert on_ray._stage(studies / "a.py", there) == "a.py"  # from elsewhere: by itself
    monkeypatch.chdir(project)
    assert on_ray._megabytes(studies) == pytest.approx(13e-6)
    monkeypatch.setattr(on_ray, "MOST_MEGABYTES", 12e-6)
    with pytest.raises(UsageError, match=r"What lies beside studies/a\.py has .* Ray carries"):
        on_ray._stage(Path("studies/a.py"), there)
    monkeypatch.setattr(on_ray, "MOST_MEGABYTES", 1)
    with pytest.raises(UsageError, match=r"What lies beside studies/a\.py cannot be copied"):
        on_ray._stage(Path("studies/a.py"), there / "studies" / "a.py")


def dies(error: Exception, *, known: bool = True) -> Gone:
    """What the engine says of a worker whose actor answers with an error."""
    engine = engine_of("postgresql://db/x", "s3://bucket")
    state = WorkerState(1, 7, "trial 3", None, 0.0)
    placed = on_ray._Placed(1, None, None, state, engine._supervisor.worker(7) if known else None)
    gone = engine._death_of(placed, error)
    assert (gone.owner == placed.owner) is known
    return gone


def test_what_the_death_of_an_actor_means() -> None:
    lost = dies(ray.exceptions.ActorDiedError())
    assert (lost.death, lost.with_its_node) == ("lost with its Ray actor or node", True)
    assert dies(ray.exceptions.NodeDiedError("gone")).death == lost.death
    raised = dies(ray.exceptions.RayTaskError("poll", "Traceback\nOSError: no pipe", OSError()))
    assert (raised.death, raised.with_its_node) == ("failed in its Ray actor", False)
    assert "OSError: no pipe" in raised.last_words()
    starved = dies(ray.exceptions.OutOfMemoryError("95 %"))
    assert (starved.death, starved.with_its_node) == ("out of memory", False)
    never = dies(ray.exceptions.RuntimeEnvSetupError("no module\nnamed optuna"), known=False)
    assert (never.death, never.with_its_node) == ("could not be started by Ray", False)
    assert "no module | named optuna" in never.last_words()
    assert not dies(ray.exceptions.ActorDiedError(), known=False).with_its_node
    assert dies(ray.exceptions.NodeDiedError("gone"), known=False).with_its_node


def test_what_a_worker_does_began_when_it_was_first_told() -> None:
    first = WorkerState(1, 7, "training the base", 0.1, since=100.0, told=101.0)
    again = WorkerState(1, 7, "training the base", 0.2, since=100.02, told=102.0)
    assert on_ray._continued(first, again) == replace(again, since=100.0)
    other = WorkerState(1, 7, "trial 3", None, since=103.0)
    assert on_ray._continued(again, other) == other
