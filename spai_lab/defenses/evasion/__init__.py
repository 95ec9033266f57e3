"""Defenses against evasion: masked gradients and how they fall, robust training, certificates, detection."""

import spai_lab.training  # noqa: F401, first: its recipes train with losses of this package
from spai_lab.defenses.evasion.activation_pruning import activation_pruning
from spai_lab.defenses.evasion.adversarial import (
    adversarial_training,
    ensemble_adversarial_training,
    fast_adversarial_training,
)
from spai_lab.defenses.evasion.defense_gan import defense_gan
from spai_lab.defenses.evasion.distillation import defensive_distillation
from spai_lab.defenses.evasion.ibp import ibp
from spai_lab.defenses.evasion.lid import lid
from spai_lab.defenses.evasion.magnet import magnet
from spai_lab.defenses.evasion.random_resize import random_resize_pad
from spai_lab.defenses.evasion.regularization import gradient_regularization, trades
from spai_lab.defenses.evasion.relaxation import convex_relaxation
from spai_lab.defenses.evasion.smoothing import randomized_smoothing
from spai_lab.defenses.evasion.squeezing import feature_squeezing
from spai_lab.defenses.evasion.thermometer import thermometer
from spai_lab.defenses.evasion.transformation import input_transformation

__all__ = [
    "activation_pruning",
    "adversarial_training",
    "convex_relaxation",
    "defense_gan",
    "defensive_distillation",
    "ensemble_adversarial_training",
    "fast_adversarial_training",
    "feature_squeezing",
    "gradient_regularization",
    "ibp",
    "input_transformation",
    "lid",
    "magnet",
    "random_resize_pad",
    "randomized_smoothing",
    "thermometer",
    "trades",
]
