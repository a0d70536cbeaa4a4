"""What the Ray engine decides by itself: what travels, and which clusters it takes."""

import os
from pathlib import Path
from typing import Any

import pytest
import ray
import ray.util

from tuner.engines import ray as on_ray
from tuner.engines.interface import LogLine
from tuner.errors import UsageError
from tuner.settings import RayPlace
from tuner.storage import this_process


def engine_of(storage: str, artifacts: str, address: str = "auto") -> on_ray.RayEngine:
    return on_ray.RayEngine(
        Path("study.py"), storage, this_process(), place=RayPlace(address, 1, 0), workers=1,
        variables={}, artifacts=artifacts,
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
    alone._check_nodes()
    assert alone.poll(0) == []
    nodes.append({"NodeManagerAddress": "10.0.0.3", "Alive": True})
    with pytest.raises(UsageError, match="the Ray cluster has 1 other machine; name a server"):
        alone._check_nodes()
    with pytest.raises(UsageError, match="the Ray cluster has 2 other machines"):
        engine_of("sqlite:////here/tuner.db", "/here", "ray://10.0.0.1:1")._check_nodes()


def test_an_artifact_store_that_is_a_folder_is_told_of(nodes: list[dict[str, Any]]) -> None:
    nodes.append({"NodeManagerAddress": "10.0.0.3", "Alive": True})
    folder = engine_of("postgresql://db/x", "/here/artifacts")
    folder._check_nodes()
    (line,) = folder.poll(0)
    assert isinstance(line, LogLine)
    assert "the artifact store is the folder /here/artifacts: unless all share it" in line.text
    bucket = engine_of("postgresql://db/x", "s3://bucket/x")
    bucket._check_nodes()
    assert bucket.poll(0) == []


def test_what_travels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project, there = tmp_path / "project", tmp_path / "there"
    studies = project / "studies"
    for folder in (studies / "data", studies / "__pycache__", studies / ".git", there):
        folder.mkdir(parents=True)
    for name in ("a.py", "data/x.npz", "tuner.db", "tuner.db-wal", "__pycache__/a.pyc", ".git/y"):
        (studies / name).write_text("x")
    (project / "big.bin").write_text("x")
    os.mkfifo(studies / "pipe")  # of which there is nothing to copy
    monkeypatch.chdir(project)

    def travelled() -> set[str]:
        return {str(it.relative_to(there)) for it in there.rglob("*") if it.is_file()}

    assert on_ray._stage(Path("studies/a.py"), there) == "studies/a.py"
    assert travelled() == {"studies/a.py", "studies/data/x.npz"}
    assert on_ray._stage(studies / "a.py", there) == "studies/a.py"
    monkeypatch.chdir(tmp_path / "there")
    assert on_ray._stage(studies / "a.py", there) == "a.py"  # from elsewhere: by itself
    monkeypatch.chdir(project)
    monkeypatch.setattr(on_ray, "MOST_MEGABYTES", 1e-6)
    with pytest.raises(UsageError, match=r"What lies beside studies/a\.py has .* Ray carries"):
        on_ray._stage(Path("studies/a.py"), there)
