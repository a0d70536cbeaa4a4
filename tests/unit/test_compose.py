"""What must hold in docker-compose.yml, whoever changes it."""

import fnmatch
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT
from tuner.cli import COMMANDS
from tuner.flags import PASSWORD_FILE_VARIABLE, SETTINGS
from tuner.settings import DEFAULT_PORT
from tuner.storage.urls import resolve
from tuner.supervise import DRAIN_SECONDS

TEXT = (ROOT / "docker-compose.yml").read_text()
FILE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, Any] = FILE["services"]
OURS = [name for name, it in SERVICES.items() if it["image"] == "tuner:local"]
OTHERS = [name for name in SERVICES if name not in OURS]
DOCKERFILE: str = SERVICES["init"]["build"]["dockerfile_inline"]
README = (ROOT / "README.md").read_text()


def images() -> list[str]:
    bases = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    return [*bases, *(SERVICES[name]["image"] for name in OTHERS)]


@pytest.mark.parametrize("image", images())
def test_every_image_of_others_is_a_release_and_no_moving_name(image: str) -> None:
    assert re.fullmatch(r"[\w/]+:\d+\.\d+(\.\d+)?-[\w-]+", image)


def test_our_image_is_built_once_and_never_pulled() -> None:
    assert [name for name in OURS if "build" in SERVICES[name]] == ["init"]
    assert all(SERVICES[name]["pull_policy"] == "never" for name in OURS)
    assert set(OURS) == {"init", "worker", "dashboard", "tuner", "report"}


def test_ports_are_published_for_this_host_alone_or_by_the_proxy() -> None:
    published = {name: it["ports"] for name, it in SERVICES.items() if "ports" in it}
    assert published == {
        "dashboard": [f"127.0.0.1:{DEFAULT_PORT}:{DEFAULT_PORT}"],
        "proxy": ["80:80", "443:443"],
    }
    assert {name: it["profiles"] for name, it in SERVICES.items() if "profiles" in it} == {
        "tuner": ["tools"],
        "report": ["report"],
        "proxy": ["publish"],
    }


def test_the_database_is_reached_by_our_services_alone() -> None:
    assert FILE["networks"]["database"] == {"internal": True}
    assert SERVICES["db"]["networks"] == ["database"]
    assert {n for n, it in SERVICES.items() if "database" in it["networks"]} == {"db", *OURS}
    # What publishes a port needs a network that is not internal.
    assert all("outside" in it["networks"] for it in SERVICES.values() if "ports" in it)


def test_nothing_starts_before_what_it_needs_is_healthy_or_done() -> None:
    for service in SERVICES.values():
        for name, how in service.get("depends_on", {}).items():
            once = SERVICES[name].get("restart") == "no"
            wanted = "service_completed_successfully" if once else "service_healthy"
            assert how == {"condition": wanted}
            assert once or "healthcheck" in SERVICES[name]
    assert all(set(SERVICES[n]["depends_on"]) == {"db", "init"} for n in OURS if n != "init")
    assert set(SERVICES["init"]["depends_on"]) == {"db"}


def test_what_is_up_comes_back_and_has_time_to_leave() -> None:
    for name, service in SERVICES.items():
        if "profiles" not in service or name == "proxy":
            assert service["restart"] == ("no" if name == "init" else "unless-stopped")
    for name in ("worker", "tuner"):
        grace = SERVICES[name]["stop_grace_period"]
        assert int(grace.removesuffix("s")) >= 2 * DRAIN_SECONDS
    assert SERVICES["worker"]["stop_signal"] == "SIGTERM"
    assert all(SERVICES[name]["init"] is True for name in OURS)


def test_the_password_is_a_file_and_nothing_else() -> None:
    assert FILE["secrets"]["db_password"] == {"file": "./.secrets/db_password"}
    place = "/run/secrets/db_password"
    assert SERVICES["db"]["environment"]["POSTGRES_PASSWORD_FILE"] == place
    for name in OURS:
        environment = SERVICES[name]["environment"]
        assert environment[PASSWORD_FILE_VARIABLE] == place
        assert "db_password" in SERVICES[name]["secrets"]
        url = resolve(environment["OPTUNA_STORAGE"])
        assert (url.host, url.username, url.password) == ("db", "tuner", None)
    for name, value in re.findall(r"(\w*PASS\w*)[:=] *(\S+)", TEXT, re.IGNORECASE):
        assert (name.endswith("PASSWORD_FILE"), value) == (True, place)
    for folder in ("secrets", "env"):
        assert any(line.rstrip("/") == f".{folder}" for line in lines_of(".gitignore"))


def lines_of(name: str) -> list[str]:
    return [line for line in (ROOT / name).read_text().splitlines() if line[:1] not in {"", "#"}]


def test_every_variable_of_ours_is_read_by_the_program() -> None:
    known = {setting.environment for setting in SETTINGS.values()} | {PASSWORD_FILE_VARIABLE}
    for name in OURS:
        assert set(SERVICES[name]["environment"]) <= known | {"HOME"}
    chosen = set(re.findall(r"\$\{(\w+)", TEXT))
    head = TEXT.split("name: tuner")[0]
    assert all(re.search(rf"^# .*\b{name}\b", head, re.MULTILINE) for name in chosen)


def test_every_command_of_ours_is_one() -> None:
    for name in OURS:
        words = [*SERVICES[name].get("entrypoint", []), *SERVICES[name]["command"]]
        assert words[:2] == ["python", "-m"]
        module, _, command = words[2].partition(".")
        assert module == "tuner"
        assert (command or words[3]) in COMMANDS


def test_volumes_belong_to_the_images_user_and_only_who_must_writes() -> None:
    made = re.search(r"^RUN install -d -o (\d+) -g \1 (.*)$", DOCKERFILE, re.MULTILINE)
    assert made is not None
    mounts = {name: [mount(it) for it in SERVICES[name].get("volumes", [])] for name in OURS}
    first = {target for _, target, _ in mounts["init"]}
    for name in OURS:
        for source, target, options in mounts[name]:
            if source in FILE["volumes"]:
                assert target in made[2].split()
                assert target in first  # a new volume takes the owner of who mounts it first
            assert options == ("ro" if source == "./studies" or name == "dashboard" else options)
    assert {n for n in OURS if ("./studies", "/project/studies", "ro") in mounts[n]} == {
        "worker",
        "tuner",
    }
    assert mounts["worker"] == mounts["tuner"]
    used = {mount(it)[0] for service in SERVICES.values() for it in service.get("volumes", [])}
    assert set(FILE["volumes"]) == {it for it in used if not it.startswith(".")}


def mount(volume: str | dict[str, Any]) -> tuple[str, str, str]:
    """A volume's source, target and options."""
    if isinstance(volume, dict):
        assert volume["bind"] == {"create_host_path": False}
        return volume["source"], volume["target"], ""
    source, target, *options = volume.split(":")
    return source, target, ",".join(options)


def test_ours_may_do_nothing_that_needs_root() -> None:
    last = DOCKERFILE.rsplit("\nFROM ", maxsplit=1)[-1]
    users = re.findall(r"^USER (\d+):(\d+)$", last, re.MULTILINE)
    assert users == [("10001", "10001")]
    assert last.index("\nUSER ") > last.rindex("\nRUN ")
    for name in OURS:
        assert SERVICES[name]["cap_drop"] == ["ALL"]
        assert SERVICES[name]["security_opt"] == ["no-new-privileges:true"]
        assert "privileged" not in SERVICES[name]


def test_the_image_is_built_from_what_it_needs_alone() -> None:
    allowed = [line.removeprefix("!") for line in lines_of(".dockerignore") if line[0] == "!"]
    assert lines_of(".dockerignore")[0] == "*"
    copied = [
        word
        for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.MULTILINE)
        for word in line.split()[:-1]
    ]
    assert sorted(set(copied)) == sorted(allowed)
    assert all((ROOT / path).exists() for path in allowed)
    for secret in (".secrets/db_password", ".env", "tuner.db", ".venv", "tuner-artifacts", ".git"):
        assert not any(fnmatch.fnmatch(secret, pattern) for pattern in allowed)
    # Dependencies are installed before the code comes, and by what pyproject.toml says of them.
    last = DOCKERFILE.rsplit("\nFROM ", maxsplit=1)[-1]
    assert last.index("pip install") < last.index("COPY --from=package")


def test_the_proxys_settings_need_a_user_and_stay_within() -> None:
    settings = FILE["configs"]["caddyfile"]["content"]
    assert "basicauth {\n\t\timport /run/secrets/dashboard_users\n\t}" in settings
    assert SERVICES["proxy"]["secrets"] == ["dashboard_users"]
    assert SERVICES["proxy"]["image"] in README
    assert "admin off" in settings


@pytest.mark.parametrize("name", ["docker-compose.gpu.yml", "docker-compose.s3.yml"])
def test_the_readmes_other_files_change_services_of_this_one(name: str) -> None:
    other = yaml.safe_load(snippet(name))
    assert set(other["services"]) <= set(SERVICES)
    arguments = other["services"]["init"]["build"]["args"]
    assert set(arguments) == set(SERVICES["init"]["build"]["args"])
    assert f"\nARG {next(iter(arguments))}=" in DOCKERFILE


def snippet(name: str) -> str:
    """A file that the README shows."""
    return README.split(f"<!-- {name} -->\n```yaml\n")[1].split("```")[0]


def test_the_readme_names_the_files_of_the_tests() -> None:
    for path in re.findall(r"`?(tests/e2e/test_compose\w*\.py)", README):
        assert Path(ROOT / path).exists()
