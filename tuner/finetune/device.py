"""Where training runs: the threads TensorFlow may use, and what a trial records about them.

Importing this module sets the threads, so it comes before anything that computes: TensorFlow fixes
its thread pools with the first operation of a process.
"""

import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # its notes on CPU features are not for users

import keras
import tensorflow as tf

from tuner.errors import UsageError
from tuner.machine import count_cores

THREADS_VARIABLE = "TUNER_THREADS"
"""Threads of one training process; unset: TensorFlow takes every core of the process."""


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


def precision() -> str:
    """The type that layers compute in, by Keras's name: ``"float32"``."""
    return str(keras.config.dtype_policy().name)


check_backend()
set_threads()
