"""Attacks on privacy: what a user, a silo or a provider can learn of the data that a model was trained on."""

from spai_lab.attacks.privacy.copying import extraction_learning
from spai_lab.attacks.privacy.extraction import extraction_equations, extraction_relu
from spai_lab.attacks.privacy.leakage import gradient_leakage
from spai_lab.attacks.privacy.likelihood import lira
from spai_lab.attacks.privacy.membership import membership_loss, membership_shadow

__all__ = [
    "extraction_equations",
    "extraction_learning",
    "extraction_relu",
    "gradient_leakage",
    "lira",
    "membership_loss",
    "membership_shadow",
]
