"""Where training runs: the threads and the GPU memory that TensorFlow may use.

Importing this module sets both, so it comes before anything that computes: TensorFlow fixes
its thread pools with the first operation of a process.
"""

import contextlib
import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # its notes on CPU features are not for users

import keras
import tensorflow as tf

from tuner.errors import UsageError
from tuner.machine import THREADS_VARIABLE, count_cores


def check_backend() -> None:
    """Refuse another Keras backend: the training loop is a TensorFlow graph.

    Raises:
        UsageError: Keras was configured for JAX, PyTorch or another backend.
    """
    backend = keras.config.backend()
    if backend != "tensorflow":
        raise UsageError(
            f"tuner.finetune trains on TensorFlow, and Keras is set to the backend {backend!r}: "
            "set KERAS_BACKEND=tensorflow."
        )


def set_threads() -> None:
    """Give TensorFlow the threads that ``TUNER_THREADS`` names, if it is set.

    Raises:
        UsageError: the variable is not a whole number from 1 up, or TensorFlow has already computed
            something in this process, so that its threads can no longer be chosen.
    """
    text = os.environ.get(THREADS_VARIABLE)
    if not text:
        return
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(
            f"{THREADS_VARIABLE}={text!r} is not a number of threads: give a whole number from "
            "1 up, or unset it to use every core."
        )
    try:
        tf.config.threading.set_intra_op_parallelism_threads(int(text))
        tf.config.threading.set_inter_op_parallelism_threads(1)
    except RuntimeError:
        raise UsageError(
            f"{THREADS_VARIABLE}={text} comes too late: TensorFlow has computed something before "
            "tuner.finetune was imported. Import tuner.finetune first in the study file."
        ) from None


def threads() -> int:
    """Threads that one operation may use in this process."""
    chosen = int(tf.config.threading.get_intra_op_parallelism_threads())
    return chosen or count_cores()


def kind() -> str:
    """``"GPU"`` if TensorFlow sees one, else ``"CPU"``."""
    return "GPU" if tf.config.list_physical_devices("GPU") else "CPU"


def gpu_has_bfloat16() -> bool:
    """Whether every GPU has instructions for bfloat16: NVIDIA's do from compute capability 8."""
    details = [
        tf.config.experimental.get_device_details(gpu)
        for gpu in tf.config.list_physical_devices("GPU")
    ]
    return all(detail.get("compute_capability", (0, 0)) >= (8, 0) for detail in details)


def grow_gpu_memory() -> None:
    """Take a GPU's memory as it is needed, so that workers can share one."""
    for gpu in tf.config.list_physical_devices("GPU"):
        with contextlib.suppress(RuntimeError, ValueError):  # in use already, or divided
            tf.config.experimental.set_memory_growth(gpu, enable=True)


check_backend()
set_threads()
grow_gpu_memory()
