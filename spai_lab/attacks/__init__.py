"""Attacks of the survey, by what they are after: evasion, poisoning, privacy."""

from spai_lab.attacks.evasion import bim, fgsm, mim, pgd

__all__ = ["bim", "fgsm", "mim", "pgd"]
