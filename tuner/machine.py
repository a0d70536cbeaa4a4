"""What this machine has for us: cores and memory, as limited by containers and affinity."""

import os
import platform
from pathlib import Path

import psutil

THREADS_VARIABLE = "TUNER_THREADS"
"""Threads of one training process; unset: TensorFlow takes every core of the process."""

# Libraries that would each start a thread a core.
_THREAD_VARIABLES = (
    THREADS_VARIABLE,
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
)

GPUS_VARIABLE = "CUDA_VISIBLE_DEVICES"
"""The GPUs that a process may use; CUDA's own."""

PRECISION_VARIABLE = "TUNER_PRECISION"
"""The type that layers compute in, one of `PRECISIONS`; unset: auto."""
AUTO = "auto"
PRECISIONS = (AUTO, "float32", "bfloat16")

# A TensorFlow worker takes 1.0 to 1.4 GB.
WORKER_MEMORY_BYTES = 1.5e9

_BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16"}
_CGROUP = Path("/sys/fs/cgroup")
_DEVICES = Path("/dev")


def count_cores() -> int:
    """Cores this process may use, at least 1: affinity and a container's CPU quota count."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quota, _, period = _read("cpu.max").partition(" ")
    if quota.isdigit() and period.isdigit():
        available = min(available or 1, int(quota) // int(period))
    return max(1, available or 1)


def memory_bytes() -> int:
    """Memory this process may use, in bytes: a container's limit counts."""
    limit = _read("memory.max")
    total = int(psutil.virtual_memory().total)
    return min(total, int(limit)) if limit.isdigit() else total


def default_workers() -> int:
    """One worker a core, as far as the memory goes, at least 1."""
    return max(1, min(count_cores(), int(memory_bytes() / WORKER_MEMORY_BYTES)))


def threads_per_worker(workers: int) -> int:
    """Threads for each of so many workers, so that they do not fight for cores."""
    return max(1, count_cores() // max(1, workers))


def thread_variables(workers: int, threads: int | None = None) -> dict[str, str]:
    """Environment variables that divide this machine's cores between so many worker processes.

    Args:
        workers: processes.
        threads: of each, where that is given.
    """
    return dict.fromkeys(_THREAD_VARIABLES, str(threads or threads_per_worker(workers)))


def gpu_variables(worker: int, workers: int) -> dict[str, str]:
    """Environment variables that give a worker one of this machine's GPUs, in turn.

    Args:
        worker: its number, from 1.
        workers: of this machine; one alone keeps all GPUs.
    """
    gpus = visible_gpus() if workers > 1 else []
    return {GPUS_VARIABLE: gpus[(worker - 1) % len(gpus)]} if gpus else {}


def visible_gpus() -> list[str]:
    """NVIDIA's GPUs that this process may use, as ``CUDA_VISIBLE_DEVICES`` names them."""
    chosen = os.environ.get(GPUS_VARIABLE)
    if chosen is None:
        return [str(index) for index, _ in enumerate(_DEVICES.glob("nvidia[0-9]*"))]
    names = [name.strip() for name in chosen.split(",")]
    wrong = (place for place, name in enumerate(names) if not name or name.startswith("-"))
    return names[: next(wrong, len(names))]  # as CUDA, which reads no further


def _read(name: str) -> str:
    try:
        return (_CGROUP / name).read_text().strip()
    except OSError:
        return ""


def own_megabytes() -> int:
    """Memory that only this process holds now, in MB: a leak shows from trial to trial.

    Mapped files, which workers share and the system may drop, are left out where that is known.
    """
    memory = psutil.Process().memory_info()
    return round(float(memory.rss - getattr(memory, "shared", 0)) / 1e6)


def cpu_model() -> str:
    """The processor's name, family, model and stepping: results are the same bits on one model."""
    fields = _cpu_fields()
    if not fields:
        return platform.processor() or platform.machine()
    keys = ("model name", "cpu family", "model", "stepping")
    return " / ".join(fields[key] for key in keys if key in fields) or platform.machine()


def has_bfloat16() -> bool:
    """Whether this is an x86 processor with instructions for bfloat16, as far as Linux says.

    Without them bfloat16 is emulated, and slower than float32. Other processors were not measured.
    """
    return bool(_BFLOAT16_FLAGS.intersection(_cpu_fields().get("flags", "").split()))


def _cpu_fields() -> dict[str, str]:
    """What Linux says of the first processor, by its own names; nothing on other systems."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return {}
    fields: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    return fields


def file_system_of(directory: Path) -> str:
    """The type of the file system that holds a directory, as the system names it; "" if unknown."""
    place = directory.resolve()
    holding = [
        partition
        for partition in psutil.disk_partitions(all=True)
        if place.is_relative_to(partition.mountpoint)
    ]
    # The longest is the innermost, and of several at one place the last is on top.
    innermost = max(enumerate(holding), key=lambda it: (len(it[1].mountpoint), it[0]), default=None)
    return "" if innermost is None else str(innermost[1].fstype).lower()


def oom_kills() -> int:
    """How many processes of this container the kernel has killed for want of memory."""
    for line in _read("memory.events").splitlines():
        name, _, count = line.partition(" ")
        if name == "oom_kill":
            return int(count)
    return 0
