"""FGSM, BIM, MIM and PGD-40 in L-inf, at a radius at which they fool some of the images and not all."""

from functools import partial

from torch import Tensor, nn

from benchmarks.contest import Contest, Run, art_classifier
from spai_lab.attacks.evasion import bim, fgsm, mim, pgd

EPS = 0.1
STEPS = 40
STEP_SIZE = 2.5 * EPS / STEPS
FEW = 10  # steps of BIM and MIM, each a tenth of the radius


def fgsm_ours(model: nn.Module, x: Tensor, y: Tensor) -> Run:
    return lambda: fgsm(model, x, y, eps=EPS)


def bim_ours(model: nn.Module, x: Tensor, y: Tensor) -> Run:
    return lambda: bim(model, x, y, eps=EPS, steps=FEW)


def mim_ours(model: nn.Module, x: Tensor, y: Tensor) -> Run:
    return lambda: mim(model, x, y, eps=EPS, steps=FEW)


def pgd_ours(model: nn.Module, x: Tensor, y: Tensor) -> Run:
    return lambda: pgd(model, x, y, eps=EPS, steps=STEPS)


def fgsm_by_torchattacks(model: nn.Module, x: Tensor, y: Tensor) -> Run:
    import torchattacks

    return partial(torchattacks.FGSM(model, eps=EPS), x, y)


def bim_by_torchattacks(model: nn.Module, x: Tensor, y: Tensor) -> Run:
    import torchattacks

    return partial(torchattacks.BIM(model, eps=EPS, alpha=EPS / FEW, steps=FEW), x, y)


def mim_by_torchattacks(model: nn.Module, x: Tensor, y: Tensor) -> Run:
    import torchattacks

    return partial(torchattacks.MIFGSM(model, eps=EPS, alpha=EPS / FEW, steps=FEW, decay=1.0), x, y)


def pgd_by_torchattacks(model: nn.Module, x: Tensor, y: Tensor) -> Run:
    import torchattacks

    return partial(torchattacks.PGD(model, eps=EPS, alpha=STEP_SIZE, steps=STEPS), x, y)


def by_foolbox(attack, model: nn.Module, x: Tensor, y: Tensor) -> Run:
    """Without foolbox's own count of successes."""
    import foolbox

    victim = foolbox.PyTorchModel(model, bounds=(0, 1), device=x.device)
    return lambda: attack.run(victim, x, foolbox.criteria.Misclassification(y), epsilon=EPS)


def fgsm_by_foolbox(model: nn.Module, x: Tensor, y: Tensor) -> Run:
    import foolbox

    return by_foolbox(foolbox.attacks.FGSM(), model, x, y)


def bim_by_foolbox(model: nn.Module, x: Tensor, y: Tensor) -> Run:
    import foolbox

    return by_foolbox(foolbox.attacks.LinfBasicIterativeAttack(rel_stepsize=1 / FEW, steps=FEW), model, x, y)


def pgd_by_foolbox(model: nn.Module, x: Tensor, y: Tensor) -> Run:
    import foolbox

    return by_foolbox(foolbox.attacks.PGD(rel_stepsize=2.5 / STEPS, steps=STEPS), model, x, y)


def by_art(attack, x: Tensor, y: Tensor) -> Run:
    import torch

    pixels, labels = x.numpy(), y.numpy()
    return lambda: torch.from_numpy(attack.generate(pixels, y=labels))


def fgsm_by_art(model: nn.Module, x: Tensor, y: Tensor) -> Run:
    from art.attacks.evasion import FastGradientMethod

    return by_art(FastGradientMethod(art_classifier(model, x), eps=EPS, batch_size=len(x)), x, y)


def bim_by_art(model: nn.Module, x: Tensor, y: Tensor) -> Run:
    from art.attacks.evasion import BasicIterativeMethod

    schedule = {"eps": EPS, "eps_step": EPS / FEW, "max_iter": FEW}
    return by_art(BasicIterativeMethod(art_classifier(model, x), **schedule, batch_size=len(x), verbose=False), x, y)


def mim_by_art(model: nn.Module, x: Tensor, y: Tensor) -> Run:
    from art.attacks.evasion import MomentumIterativeMethod

    schedule = {"eps": EPS, "eps_step": EPS / FEW, "max_iter": FEW, "decay": 1.0}
    return by_art(MomentumIterativeMethod(art_classifier(model, x), **schedule, batch_size=len(x), verbose=False), x, y)


def pgd_by_art(model: nn.Module, x: Tensor, y: Tensor) -> Run:
    from art.attacks.evasion import ProjectedGradientDescent

    schedule = {"eps": EPS, "eps_step": STEP_SIZE, "max_iter": STEPS, "num_random_init": 1}
    attack = ProjectedGradientDescent(art_classifier(model, x), **schedule, batch_size=len(x), verbose=False)
    return by_art(attack, x, y)


FGSM = {"ours": fgsm_ours, "torchattacks": fgsm_by_torchattacks, "foolbox": fgsm_by_foolbox, "ART": fgsm_by_art}
BIM = {"ours": bim_ours, "torchattacks": bim_by_torchattacks, "foolbox": bim_by_foolbox, "ART": bim_by_art}
MIM = {"ours": mim_ours, "torchattacks": mim_by_torchattacks, "ART": mim_by_art}
PGD = {"ours": pgd_ours, "torchattacks": pgd_by_torchattacks, "foolbox": pgd_by_foolbox, "ART": pgd_by_art}

CONTESTS = (
    Contest("FGSM", FGSM, images=16, rounds=200),
    Contest("FGSM", FGSM, images=256, rounds=200, memory=True),
    Contest(f"BIM-{FEW}", BIM, images=256, rounds=50),
    Contest(f"MIM-{FEW}", MIM, images=256, rounds=50),
    Contest(f"PGD-{STEPS}", PGD, images=16, rounds=40),
    Contest(f"PGD-{STEPS}", PGD, images=256, rounds=25, memory=True),
)
