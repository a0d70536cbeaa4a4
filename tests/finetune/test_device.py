"""What is automatic on a GPU, on a machine without one: TensorFlow is told that it has one."""

import pytest
import tensorflow as tf

from tuner.finetune import device, features
from tuner.finetune.stages import freeze


def test_the_memory_of_every_gpu_grows(monkeypatch):
    grown = []
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [f"{kind} 0", f"{kind} 1"])

    def set_growth(gpu, enable):
        grown.append((gpu, enable))
        if gpu == "GPU 0":
            raise RuntimeError("Physical devices cannot be modified after being initialized")

    monkeypatch.setattr(tf.config.experimental, "set_memory_growth", set_growth)
    device.grow_gpu_memory()
    assert grown == [("GPU 0", True), ("GPU 1", True)]
    assert device.kind() == "GPU"


@pytest.mark.parametrize(("kind", "stored"), [("CPU", True), ("GPU", False)])
def test_features_are_not_stored_on_a_gpu(kind, stored, task, study_file, digits, monkeypatch):
    model = task._trainer.model
    stages = study_file.STAGES[:2]
    freeze(model, stages)
    monkeypatch.setattr(device, "kind", lambda: kind)
    try:
        assert (features.footprint(model, stages, digits) is not None) == stored
    finally:
        freeze(model, ())
