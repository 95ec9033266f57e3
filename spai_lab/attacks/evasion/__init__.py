"""Attacks at inference time: a small change of the input changes the answer."""

from spai_lab.attacks.evasion.gradient import bim, fgsm, mim, pgd

__all__ = ["bim", "fgsm", "mim", "pgd"]
