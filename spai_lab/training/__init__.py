"""Training, reference weights, and the user's cache of trained models.

>>> from spai_lab.training import reference
>>> reference("lenet", "digits").training
False
"""

from spai_lab.training.cache import trained
from spai_lab.training.loop import Diverged, History, accuracy, fit
from spai_lab.training.recipes import Adversarial, Pretrained, Recipe, Robustly, Shift, train
from spai_lab.training.weights import manifest, prediction_interval, rebuild, reference

__all__ = [
    "Adversarial",
    "Diverged",
    "History",
    "Pretrained",
    "Recipe",
    "Robustly",
    "Shift",
    "accuracy",
    "fit",
    "manifest",
    "prediction_interval",
    "rebuild",
    "reference",
    "train",
    "trained",
]
