"""DeepFool beside torchattacks, foolbox and ART; L-BFGS beside SciPy's L-BFGS-B, since none of them has it any more."""

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import minimize
from torch import Tensor, nn

from benchmarks.contest import Contest, Run, art_classifier
from spai_lab.attacks.evasion.least_distortion import deepfool, lbfgs
from spai_lab.threat import value_and_gradient

SEARCHES = 5


def ours(model: nn.Module, x: Tensor, y: Tensor) -> Run:
    return lambda: deepfool(model, x, y)


def by_torchattacks(model: nn.Module, x: Tensor, y: Tensor) -> Run:
    import torchattacks

    attack = torchattacks.DeepFool(model, steps=50, overshoot=0.02)
    return lambda: attack(x, y)


def by_foolbox(model: nn.Module, x: Tensor, y: Tensor, *, norm: str = "l2") -> Run:
    import foolbox

    attack = {"l2": foolbox.attacks.L2DeepFoolAttack, "linf": foolbox.attacks.LinfDeepFoolAttack}[norm](steps=50)
    victim = foolbox.PyTorchModel(model, bounds=(0, 1), device=x.device)
    criterion = foolbox.criteria.Misclassification(y)
    return lambda: attack.run(victim, x, criterion)


def by_art(model: nn.Module, x: Tensor, y: Tensor) -> Run:
    from art.attacks.evasion import DeepFool

    classifier = art_classifier(model, x)
    attack = DeepFool(classifier, max_iter=50, epsilon=0.02, nb_grads=10, batch_size=len(x), verbose=False)
    pixels = x.numpy()
    return lambda: torch.from_numpy(attack.generate(pixels))


def our_lbfgs(model: nn.Module, x: Tensor, t: Tensor) -> Run:
    return lambda: lbfgs(model, x, t, targeted=True, searches=SEARCHES)


def by_scipy(model: nn.Module, x: Tensor, t: Tensor, *, searches: int = SEARCHES, steps: int = 50) -> Run:
    """The same objective, box and search for c, image by image."""

    def minimizer(image: Tensor, target: Tensor, c: float) -> Tensor:
        def objective(z: np.ndarray) -> tuple[float, np.ndarray]:
            point = torch.from_numpy(z).to(image.dtype).view_as(image)
            value, slope = value_and_gradient(
                lambda p: c * (p - image).square().sum().view(1) + F.cross_entropy(model(p), target).view(1), point
            )
            return value.item(), slope.double().numpy().ravel()

        start = image.double().numpy().ravel()
        options = {"maxcor": 10, "maxfun": steps, "maxiter": steps}
        found = minimize(objective, start, jac=True, method="L-BFGS-B", bounds=[(0, 1)] * start.size, options=options)
        return torch.from_numpy(found.x).to(image.dtype).view_as(image)

    def nearest(image: Tensor, target: Tensor) -> Tensor:
        best, low, high, c = image, 0.0, np.inf, 1.0
        for _ in range(searches):
            point = minimizer(image, target, c)
            with torch.no_grad():
                hit = model(point).argmax(1).eq(target).item()
            if hit and (best is image or (point - image).norm() < (best - image).norm()):
                best = point
            low, high = (c, high) if hit else (low, c)
            c = high / 10 if low == 0 else 10 * low if high == np.inf else (low * high) ** 0.5
        return best

    return lambda: torch.cat([nearest(x[i : i + 1], t[i : i + 1]) for i in range(len(x))])


CONTESTS = (
    Contest(
        "DeepFool",
        {"ours": ours, "torchattacks": by_torchattacks, "foolbox": by_foolbox, "ART": by_art},
        images=64,
        rounds=3,
        norm="l2",
    ),
    Contest("L-BFGS", {"ours": our_lbfgs, "SciPy": by_scipy}, images=4, rounds=2, targeted=True, norm="l2"),
)
