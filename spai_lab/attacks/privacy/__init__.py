"""Attacks on privacy: what a user, a silo or a provider can learn of the data that a model was trained on."""

from spai_lab.attacks.privacy.attribute import attribute_inference
from spai_lab.attacks.privacy.copying import extraction_learning
from spai_lab.attacks.privacy.extraction import extraction_equations, extraction_relu
from spai_lab.attacks.privacy.gan import gan_attack
from spai_lab.attacks.privacy.inversion import model_inversion
from spai_lab.attacks.privacy.leakage import gradient_leakage
from spai_lab.attacks.privacy.likelihood import lira
from spai_lab.attacks.privacy.membership import membership_loss, membership_shadow
from spai_lab.attacks.privacy.memorization import extract_secret, memorization

__all__ = [
    "attribute_inference",
    "extract_secret",
    "extraction_equations",
    "extraction_learning",
    "extraction_relu",
    "gan_attack",
    "gradient_leakage",
    "lira",
    "membership_loss",
    "membership_shadow",
    "memorization",
    "model_inversion",
]
