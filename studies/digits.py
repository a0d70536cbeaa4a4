# studies/digits.py
import pickle

import numpy as np
import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier
from sklearn.model_selection import train_test_split

metric = "val_error"
max_step = 8  # epochs
space = {
    "alpha": FloatDistribution(1e-6, 10, log=True),
    "loss": CategoricalDistribution(("hinge", "log_loss", "squared_hinge")),
}

images, labels = load_digits(return_X_y=True)
train_x, val_x, train_y, val_y = train_test_split(
    images / 16, labels, stratify=labels, random_state=0
)


def objective(trial):
    model = SGDClassifier(**trial.params, random_state=trial.user_attrs["seed"])
    for epoch in range(1, max_step + 1):
        model.partial_fit(train_x, train_y, classes=np.unique(labels))
        error = 1 - model.score(val_x, val_y)
        trial.report(error, epoch)
        if trial.should_prune():
            raise optuna.TrialPruned
    (trial.outputs / "model.pickle").write_bytes(pickle.dumps(model))
    return error
