"""The artifact store, in a folder and in a bucket: checkpoints, when they go, and files."""

import errno
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import IO

import optuna
import pytest
from botocore.exceptions import ClientError
from optuna.artifacts import _upload, download_artifact, get_all_artifact_meta
from optuna.artifacts.exceptions import ArtifactNotFound

from tests.conftest import ROOT, Bucket
from tuner import s3, stores
from tuner.artifacts import (
    ARTIFACTS_ATTR_PREFIX,
    LONGEST_NAME,
    MIME_TYPE,
    Artifacts,
    named,
    open_store,
    store_of,
)
from tuner.errors import StorageError
from tuner.stores import Checkpoint, FileCheckpoint, Forgiving


def content(store: Artifacts, attrs: dict[str, str], name: str) -> bytes | None:
    """What a trial's file holds, or None if it is not in the store."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "copy")
        return path.read_bytes() if store.fetch(attrs, name, path) else None


def text_of(checkpoint: Checkpoint) -> str | None:
    try:
        return checkpoint.load().read_text()
    except FileNotFoundError:
        return None


def written(text: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_text(text)

    return write


def stored(artifacts: Artifacts, number: int, scratch: Path) -> Checkpoint:
    checkpoint = artifacts.checkpoint(number, scratch)
    checkpoint.save(written("state"))
    return checkpoint


def names(artifacts: Artifacts) -> list[str]:
    return [it.last for it in artifacts.checkpoints()]


def test_a_checkpoint_is_there_from_its_writing_to_its_end(place: str, tmp_path: Path) -> None:
    artifacts = Artifacts(place, "mnist", "abc")
    one = artifacts.checkpoint(1, tmp_path)
    assert text_of(one) is None
    one.discard()  # nothing is there
    for text in ("first", "second"):
        one.save(written(text))
        assert text_of(one) == text
    ten = stored(artifacts, 10, tmp_path)
    (found,) = (it for it in artifacts.checkpoints() if it.last == "1.npz")
    assert (found.name, found.size) == ("checkpoints/mnist-abc/1.npz", 6)
    assert -5 < found.age < 60

    def fail(path: Path) -> None:
        path.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        open_store(place).checkpoint("checkpoints/mnist-abc/1.npz", tmp_path).save(fail)
    # Whoever takes the trial finds the one before, on any host.
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    again = Artifacts(place, "mnist", "abc").checkpoint(1, elsewhere)
    assert text_of(again) == "second"
    again.discard()
    again.discard()
    assert names(artifacts) == ["10.npz"]
    assert text_of(ten) == "state"
    assert str(ten) == f"{place}/checkpoints/mnist-abc/10.npz"


def test_a_checkpoint_goes_with_what_a_killed_writer_left_of_it(tmp_path: Path) -> None:
    checkpoint = FileCheckpoint(tmp_path / "trials" / "1.npz")
    checkpoint.save(written("state"))
    for name in ("1.77.tmp", "10.npz"):
        (tmp_path / "trials" / name).write_text("half of it")
    checkpoint.discard()
    assert [it.name for it in (tmp_path / "trials").iterdir()] == ["10.npz"]


def test_a_sweep_keeps_what_unfinished_trials_need(place: str, tmp_path: Path) -> None:
    artifacts, other = Artifacts(place, "mnist", "abc"), Artifacts(place, "mnist", "def")
    stored(other, 1, tmp_path)
    for number in (3, 4, 33):
        stored(artifacts, number, tmp_path)
    artifacts.sweep_checkpoints(lambda: {3, 5})
    assert names(artifacts) == ["3.npz"]
    artifacts.sweep_checkpoints(set)
    assert names(artifacts) == []
    assert names(other) == ["1.npz"]
    artifacts.sweep_checkpoints(set)  # nor needed
    left = {it.parent.name for it in tmp_path.glob("store/checkpoints/*/*")}
    assert left == ({"mnist-def"} if Path(place).is_absolute() else set())  # no empty folder


def test_a_bucket_of_more_than_a_page_is_swept(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "_AT_ONCE", 2)
    artifacts = Artifacts(bucket.address, "mnist", "abc")
    for number in range(5):
        stored(artifacts, number, tmp_path)
    artifacts.sweep_checkpoints(lambda: {4})
    assert bucket.keys == ["a/prefix/checkpoints/mnist-abc/4.npz"]


def test_any_name_of_a_study_makes_a_folder(place: str, tmp_path: Path) -> None:
    for name in ("a/../../b", "räksmörgås", "x" * 500, "with space", "[a]*?"):
        artifacts = Artifacts(place, name, "abc")
        stored(artifacts, 0, tmp_path)
        (found,) = artifacts.checkpoints()
        checkpoints, folder, _ = found.name.split("/")
        assert checkpoints == "checkpoints"
        assert len(folder) <= LONGEST_NAME + 4


def left_behind(folder: Path, **texts: str) -> Path:
    """A folder in which an objective has left files, and one with something of its own."""
    (folder / "scratch").mkdir(parents=True)
    for name, text in texts.items():
        (folder / name).write_text(text)
    return folder


def test_what_is_stored_is_found_by_its_name(place: str, tmp_path: Path) -> None:
    store = Artifacts(place, "mnist", "abc")
    attrs = store.upload(left_behind(tmp_path / "outputs", model="weights", notes="words"))
    assert [name for _, name in named(attrs)] == ["model", "notes"]
    assert all(artifact_id.startswith("abc-") for artifact_id, _ in named(attrs))
    assert content(store, attrs, "notes") == b"words"
    assert content(store, attrs, "notex") is None
    assert store.fetch(attrs, "notes", tmp_path / "copy")
    assert (tmp_path / "copy").read_text() == "words"
    assert sorted(it.size for it in store.files()) == [5, 7]
    assert {it.last for it in store.files()} == {it for it, _ in named(attrs)}
    assert Artifacts(place, "mnist", "ab").files() == []  # of another study
    # As Optuna's own functions and the dashboard read it.
    study = optuna.create_study()
    study.add_trial(optuna.trial.create_trial(value=0.0, system_attrs=attrs))
    metas = get_all_artifact_meta(study.trials[0], storage=study._storage)
    assert [it.filename for it in metas] == ["model", "notes"]
    target = tmp_path / "again"
    download_artifact(
        artifact_store=store_of(place), artifact_id=metas[0].artifact_id, file_path=str(target)
    )
    assert target.read_text() == "weights"

    store.discard(dict([next(iter(attrs.items()))]))
    assert content(store, attrs, "model") is None
    assert not store.fetch(attrs, "model", tmp_path / "none")
    assert not (tmp_path / "none").exists()
    with pytest.raises(ArtifactNotFound):
        store_of(place).open_reader(metas[0].artifact_id)
    assert content(store, attrs, "notes") == b"words"
    store.discard(attrs)
    assert store.files() == []
    store.discard(attrs)  # nothing is there any more


def test_other_attributes_name_no_files(tmp_path: Path) -> None:
    """Pruners write attributes, too, and the dashboard null for an artifact that it deleted."""
    attrs = {"artifacts:gone": "null", "completed_rung_0": 0.5, "tuner:arm": "sgd"}
    assert named(attrs) == []
    assert content(Artifacts(str(tmp_path), "mnist", "abc"), {}, "model") is None


def test_a_disk_that_fills_up_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Artifacts(str(tmp_path / "store"), "mnist", "abc")
    outputs = left_behind(tmp_path / "outputs", a="first", b="second", c="third")
    copy, copied = shutil.copyfileobj, []

    def fill_up(source: IO[bytes], target: IO[bytes], *more: int) -> None:
        copied.append(source)
        if len(copied) == 2:
            target.write(b"sec")
            raise OSError(errno.ENOSPC, "No space left on device")
        copy(source, target, *more)

    with monkeypatch.context() as full:
        full.setattr(shutil, "copyfileobj", fill_up)
        with pytest.raises(OSError, match="No space left"):
            store.upload(outputs)
    assert len(copied) == 2
    assert store.files() == []
    assert len(store.upload(outputs)) == 3  # the objective's files are still there


def test_a_store_keeps_its_mark_and_no_two_have_the_same(
    place: str,
) -> None:
    store = open_store(place)
    mark = store.identity()
    assert mark
    assert open_store(place).identity() == mark
    assert open_store(f"{place}/below").identity() not in {mark, None}
    assert [it.name for it in store.find("*") if it.last != "below"] == ["id"]


def test_a_folder_that_takes_no_mark_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    assert open_store(str(tmp_path / "file")).identity() is None

    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    with monkeypatch.context() as read_only:
        read_only.setattr(Path, "write_text", refuse)
        assert open_store(str(tmp_path / "new")).identity() is None
    assert open_store(str(tmp_path / "new")).identity()

    # Another host made it between our look and our link.
    real, first = Path.hardlink_to, []

    def come_second(path: Path, target: Path) -> None:
        path.write_text("theirs")
        first.append(path)
        real(path, target)

    monkeypatch.setattr(Path, "hardlink_to", come_second)
    assert open_store(str(tmp_path / "raced")).identity() == "theirs"
    assert first
    assert [it.name for it in (tmp_path / "raced").iterdir()] == ["id"]


@pytest.mark.parametrize("code", ["PreconditionFailed", "NotImplemented", "AccessDenied"])
def test_a_bucket_where_another_host_is_first(
    code: str, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also on servers that know no condition, and where nothing may be written."""
    store = open_store(bucket.address)
    put = store._client.put_object

    def refuse(**arguments: object) -> None:
        if "IfNoneMatch" in arguments:
            if code == "PreconditionFailed":
                put(**{**arguments, "Body": b"theirs"})
            raise ClientError({"Error": {"Code": code}}, "PutObject")
        put(**arguments)

    monkeypatch.setattr(store._client, "put_object", refuse)
    found = store.identity()
    if code == "PreconditionFailed":
        assert found == "theirs"
    else:
        assert (found is None) == (code == "AccessDenied")


def test_a_bucket_that_cannot_be_used_is_a_sentence(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_store(bucket.address).check()
    with pytest.raises(StorageError, match=r"s3://no-such-one cannot .*NoSuchBucket.*; make the "):
        open_store("s3://no-such-one").check()
    for code, words in (
        ("AccessDenied", "; check AWS_ACCESS_KEY_ID"),
        ("403", "; check AWS_ACCESS_KEY_ID"),
        ("SlowDown", "; check the name, AWS_ENDPOINT_URL"),
    ):
        store = open_store(bucket.address)

        def refuse(code: str = code, **_: object) -> None:
            raise ClientError({"Error": {"Code": code, "Message": "Not for you."}}, "ListObjectsV2")

        monkeypatch.setattr(store._client, "list_objects_v2", refuse)
        with pytest.raises(StorageError, match=f"{code}: Not for you{words}"):
            store.check()
    with monkeypatch.context() as nobody:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            nobody.delenv(name)
        nobody.setenv("AWS_EC2_METADATA_DISABLED", "true")
        with pytest.raises(StorageError, match=r"Unable to locate credentials; check AWS_ACCESS"):
            open_store(bucket.address).check()
    for url, words in (
        ("nonsense", "Invalid endpoint: nonsense; check the variables"),
        ("http://me:s3cr3t@127.0.0.1:1", r"Could not connect .*//me:\*\*\*@127.*; check the name"),
    ):
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        with pytest.raises(StorageError, match=words):
            open_store(bucket.address).check()


def test_a_server_that_goes_away_is_an_error_as_of_a_disk(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setattr(s3, "ATTEMPTS", 1)
    store = Artifacts(bucket.address, "mnist", "abc")
    outputs = left_behind(tmp_path / "outputs", model="weights")
    attrs = {"artifacts:abc-1": '{"artifact_id": "abc-1", "filename": "model"}'}
    checkpoint = open_store(bucket.address).checkpoint("checkpoints/mnist-abc/1.npz", tmp_path)
    for call in (
        lambda: store.upload(outputs),
        lambda: content(store, attrs, "model"),
        lambda: store.fetch(attrs, "model", tmp_path / "copy"),
        store.files,
        lambda: store.sweep_checkpoints(set),
        checkpoint.load,
        lambda: checkpoint.save(written("state")),
    ):
        with pytest.raises(OSError, match="Could not connect to the endpoint") as caught:
            call()
        assert not isinstance(caught.value, FileNotFoundError)
    checkpoint.discard()
    store.discard(attrs)
    assert store.identity() is None
    assert list(open_store(bucket.address).remove(["files/abc-1"])) == ["files/abc-1"]


def test_a_checkpoint_that_its_store_does_not_take_costs_no_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An objective of somebody's own catches nothing."""
    now, asked = [100.0], []

    class Away:
        def __str__(self) -> str:
            return "s3://bucket/1.npz"

        def load(self) -> Path:
            raise OSError("Could not connect")

        def save(self, write: Callable[[Path], None]) -> None:
            asked.append(now[0])
            raise OSError("Read timeout")

        def discard(self) -> None:
            asked.append(0.0)

    monkeypatch.setattr(stores, "time", SimpleNamespace(monotonic=lambda: now[0]))
    checkpoint = Forgiving(Away())
    with pytest.raises(FileNotFoundError):
        checkpoint.load()
    for now[0] in (100.0, 109.0, 111.0):
        checkpoint.save(written("state"))
    checkpoint.discard()
    assert asked == [100.0, 111.0, 0.0]
    unread, unwritten = caplog.messages  # one each
    assert "s3://bucket/1.npz cannot be read (Could not connect): the trial starts" in unread
    assert "s3://bucket/1.npz cannot be written (Read timeout): if this trial is" in unwritten


def test_a_trial_hands_back_in_time_though_the_store_is_silent(bucket: Bucket) -> None:
    from tuner.supervise import DRAIN_SECONDS

    config = open_store(bucket.address).hurried.meta.config
    longest = config.retries["total_max_attempts"] * (config.connect_timeout + config.read_timeout)
    assert longest < DRAIN_SECONDS


def test_what_is_kept_in_attributes_is_as_optuna_keeps_it(tmp_path: Path) -> None:
    assert ARTIFACTS_ATTR_PREFIX == _upload.ARTIFACTS_ATTR_PREFIX
    assert MIME_TYPE == _upload.DEFAULT_MIME_TYPE
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "note.txt").write_text("text")
    [(key, text)] = Artifacts(str(tmp_path), "s", "0123456789ab").upload(tmp_path / "in").items()
    meta = _upload.ArtifactMeta(**json.loads(text))
    assert key == f"{_upload.ARTIFACTS_ATTR_PREFIX}{meta.artifact_id}"
    assert (meta.filename, meta.encoding) == ("note.txt", None)


def test_a_command_starts_without_what_few_need() -> None:
    """boto3, which `optuna.artifacts` imports, and filelock, which imports asyncio."""
    script = "import sys, tuner.launch, tuner.engines.child; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    heavy = {"boto3", "filelock", "pandas", "plotly", "tensorflow", "scipy", "optuna_dashboard"}
    assert not heavy & set(done.stdout.split())
