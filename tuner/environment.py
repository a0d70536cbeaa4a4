"""Where a trial ran: versions, processor and commit, named by a hash that its trials keep."""

import hashlib
import json
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version

from tuner.machine import count_cores, cpu_model, memory_bytes

PACKAGES = ("tuner", "optuna", "tensorflow", "keras", "numpy", "sqlalchemy")


def describe() -> dict[str, str | int | float]:
    """This process's environment, the same for every process that is set up alike."""
    return {
        "python": platform.python_version(),
        **{package: _version(package) for package in PACKAGES},
        "commit": _commit(),
        "host": platform.node(),
        "system": platform.platform(),
        "cpu": cpu_model(),
        "cores": count_cores(),
        "memory_gb": round(memory_bytes() / 1e9, 1),
    }


def digest(environment: dict[str, str | int | float]) -> str:
    """Twelve hexadecimal digits that name an environment."""
    return hashlib.sha256(json.dumps(environment, sort_keys=True).encode()).hexdigest()[:12]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _commit() -> str:
    """The commit of the directory the command runs in, with ``+`` when files were changed."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"],  # noqa: S607
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip()
