"""The database's password from a file: what it fits, and what is said of a wrong one."""

import os
from pathlib import Path

import pytest

from tuner.errors import UsageError
from tuner.flags import PASSWORD_FILE_VARIABLE
from tuner.storage import address_of
from tuner.storage.urls import resolve

BARE = "postgresql://tuner@db/tuner"
ODD = "p@ss %7B{x}:/?#'\"\\ 100% ü+=&"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "db_password"
    path.write_text(f"{ODD}\n", encoding="utf-8")
    monkeypatch.setenv(PASSWORD_FILE_VARIABLE, str(path))
    return path


@pytest.mark.parametrize("url", [BARE, "mysql://tuner@db:3307/tuner?charset=utf8mb4"])
def test_any_password_of_the_file_arrives_as_it_is_and_is_not_shown(url: str, file: Path) -> None:
    address = address_of(url)
    assert resolve(address.secret).password == ODD
    assert resolve(address.secret) == resolve(url).set(password=ODD)
    # Who gets it, such as a worker, need not have the file; and what it has is not replaced.
    file.write_text("another")
    assert address_of(address.secret) == address
    assert ":***@" in address.shown
    assert "p@ss" not in address.shown + repr(address)
    assert "p%40ss" not in address.shown


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:///tuner.db",
        "postgresql://db/tuner",  # no user: the server knows it by another way
        "postgresql://tuner:own@db/tuner",
        "postgresql://tuner:@db/tuner",
        "postgresql://tuner@db/tuner?password=own",
    ],
)
def test_a_url_that_needs_no_password_does_not_look_for_the_file(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    without = address_of(url)
    monkeypatch.setenv(PASSWORD_FILE_VARIABLE, "/no/such/file")
    assert address_of(url) == without


def test_one_end_of_a_line_is_no_part_of_the_password(file: Path) -> None:
    for end in ("", "\n", "\r\n"):
        file.write_bytes(f" word {end}".encode())
        assert resolve(address_of(BARE).secret).password == " word "


def test_a_password_in_a_url_may_have_a_space() -> None:
    assert resolve(address_of("postgresql://me:a%20b@db/x").secret).password == "a b"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, r"which cannot be read \(No such file or directory\)"),
        (b"\n", "which is empty"),
        (b"secret\xff\n", "which is no text in UTF-8"),
    ],
)
def test_a_wrong_file_is_a_sentence_with_its_path_and_without_its_content(
    content: bytes | None, says: str, file: Path
) -> None:
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UsageError, match=says) as caught:
        address_of(BARE)
    assert f"{PASSWORD_FILE_VARIABLE} is '{file}'" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_file_that_others_keep_is_a_sentence(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() == 0:  # root reads every file, but no directory
        monkeypatch.setenv(PASSWORD_FILE_VARIABLE, str(file.parent))
    else:
        file.chmod(0)
    with pytest.raises(UsageError, match="cannot be read"):
        address_of(BARE)
