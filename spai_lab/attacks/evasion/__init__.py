"""Attacks at inference time: a small change of the input changes the answer."""

from spai_lab.attacks.evasion.adaptive import bpda, eot
from spai_lab.attacks.evasion.apgd import apgd
from spai_lab.attacks.evasion.auto_attack import auto_attack, auto_attack_verdict
from spai_lab.attacks.evasion.carlini_wagner import carlini_wagner
from spai_lab.attacks.evasion.decision import boundary, hop_skip_jump
from spai_lab.attacks.evasion.estimation import nes, zoo
from spai_lab.attacks.evasion.fab import fab
from spai_lab.attacks.evasion.generator import advgan
from spai_lab.attacks.evasion.gradient import bim, fgsm, mim, pgd
from spai_lab.attacks.evasion.least_distortion import deepfool, lbfgs
from spai_lab.attacks.evasion.patch import patch
from spai_lab.attacks.evasion.saliency import jsma
from spai_lab.attacks.evasion.search import one_pixel, square
from spai_lab.attacks.evasion.spatial import flow_field, spatial
from spai_lab.attacks.evasion.transfer import Ensemble, substitute, transfer, transfer_matrix
from spai_lab.attacks.evasion.universal import universal_perturbation

__all__ = [
    "Ensemble",
    "advgan",
    "apgd",
    "auto_attack",
    "auto_attack_verdict",
    "bim",
    "boundary",
    "bpda",
    "carlini_wagner",
    "deepfool",
    "eot",
    "fab",
    "fgsm",
    "flow_field",
    "hop_skip_jump",
    "jsma",
    "lbfgs",
    "mim",
    "nes",
    "one_pixel",
    "patch",
    "pgd",
    "spatial",
    "square",
    "substitute",
    "transfer",
    "transfer_matrix",
    "universal_perturbation",
    "zoo",
]
