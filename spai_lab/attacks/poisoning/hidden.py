"""A backdoor whose trigger the victim never sees: poisons that look like one class and feel like another, stamped."""

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from tqdm.auto import tqdm

from spai_lab.attacks.poisoning.backdoors import square_trigger
from spai_lab.attacks.poisoning.poisoned import Poisoned, Trigger, budget, drawn, one_target, replaced, stamp
from spai_lab.checks import check_ball, check_count, check_flag, check_model, check_number
from spai_lab.data import Dataset
from spai_lab.models import features
from spai_lab.threat import fresh_generator, project, steepest, value_and_gradient


def hidden_trigger(
    data: Dataset,
    model: nn.Module,
    *,
    target: int,
    source: int | None = None,
    fraction: float,
    eps: float = 0.3,
    steps: int = 1000,
    step_size: float | None = None,
    batch_size: int = 100,
    trigger: Trigger | None = None,
    generator: torch.Generator | None = None,
    progress: bool = True,
) -> Poisoned:
    r"""Hidden trigger: each poison is an image of the target class that the features take for a stamped source image.

    $\min_z \sum_k \|\phi(z_k) - \phi(\tilde s_{a(k)})\|_2^2$ subject to $\|z_k - t_k\|_\infty \le \epsilon$, with $t_k$
    images of the target class, $\tilde s$ freshly drawn and stamped source images in each step, and a the assignment of
    least total distance. Labels stay right, and the trigger is nowhere in the training set.

    Args:
        data: the clean data.
        model: its `features` are $\phi$; the victim keeps them and trains a head on them.
        target: the class whose images are poisoned, and which the trigger shall give.
        source: the class whose stamped images shall be taken for `target`; None takes every other class.
        fraction: share of all training images that are poisoned, above 0; at most the share of the target class.
        eps: radius of the ball around $t_k$ in L-inf, in pixel units of [0, 1].
        steps: of projected gradient descent, at least 1.
        step_size: of the first step, in pixel units, above 0; it falls linearly to 0. None takes `eps / 10`.
        batch_size: poisons made together.
        trigger: pattern and mask; None takes a white square of 8 x 8 pixels or a third of the image, if that is less.
        generator: chooses the images; None draws a fresh one.
        progress: show a bar.
    Returns:
        the poisoned training set, with all labels as they were, and the trigger that it does not contain.
    Raises:
        ValueError: an argument is out of its range; names it.
    Reference: Saha et al. 2019, arXiv 1910.00033, algorithm 1.
    Survey: poisoning, backdoor.
    Simplified: signed steps in place of plain gradients, so that the step does not depend on the features' scale; the
        best assignment in place of a greedy one; the trigger stays in one place, whereas the paper moves it at random;
        eps is larger than the paper's 16/255 on photographs: of 0.1, 0.2 and 0.3 the one with the highest mean success
        on stamped validation images of the digits, over three pairs of classes and two victims each, with 150
        steps.

    >>> from spai_lab.data import load
    >>> from spai_lab.training import reference
    >>> hidden_trigger(load("digits"), reference("lenet", "digits"), target=3, fraction=0.02, steps=2, progress=False)
    Poisoned: 21 of 1078 training inputs; Trigger of 64 pixels, (1, 28, 28)
    """
    wanted = check_hidden(data, model, target, source, eps, steps, step_size, batch_size, progress)
    generator = fresh_generator(generator, data.x_train.device)
    trigger = square_trigger(data.shape, size=min(8, min(data.shape[1:]) // 3)) if trigger is None else trigger
    step_size = eps / 10 if step_size is None else step_size
    places = drawn(data.y_train == target, budget(data, fraction), generator)
    patched = stamp(data.x_train[wanted[data.y_train] != data.y_train], trigger)
    poisons = []
    batches = places.split(batch_size)
    with tqdm(total=len(batches) * steps, desc="hidden trigger", unit="step", disable=not progress) as bar:
        for batch in batches:
            z = t = data.x_train[batch]
            for step in range(steps):
                chosen = torch.randint(len(patched), (len(z),), generator=generator, device=z.device)
                with torch.no_grad():
                    phi = assigned(features(model, patched[chosen]), features(model, z))
                _, gradient = value_and_gradient(lambda z, phi=phi: (features(model, z) - phi).square().sum(1), z)
                z = project(z - step_size * (1 - step / steps) * steepest(gradient, "linf"), t, eps, "linf")
                bar.update()
            poisons.append(z)
    return replaced(data, places, torch.cat(poisons), data.y_train[places], trigger=trigger, wanted=wanted)


def assigned(candidates: Tensor, phi: Tensor) -> Tensor:
    """The candidates in the order in which they lie nearest to `phi`, one for each, by total squared distance.

    >>> assigned(torch.tensor([[0.0], [5.0]]), torch.tensor([[4.0], [1.0]]))
    tensor([[5.],
            [0.]])
    """
    distances = torch.cdist(phi, candidates).square()
    return candidates[torch.as_tensor(linear_sum_assignment(distances.cpu().numpy())[1], device=phi.device)]


def check_hidden(
    data: Dataset,
    model: nn.Module,
    target: int,
    source: int | None,
    eps: float,
    steps: int,
    step_size: float | None,
    batch_size: int,
    progress: bool,
) -> Tensor:
    """What the trigger shall give of each class, `(K,)`; raises `ValueError` for an argument out of its range."""
    wanted = one_target(target, data.num_classes)
    if source is not None:
        check_count("source", source, low=0)
        check_number("source", source, low=0, high=data.num_classes - 1)
        if source == target:
            raise ValueError(f"source is {source}, like target; accepted: another class, or None for all others")
        wanted = torch.arange(data.num_classes)
        wanted[source] = target
    check_model(model, data.x_train)
    check_ball(data.x_train, eps, "linf")
    check_count("steps", steps)
    if step_size is not None:
        check_number("step_size", step_size, low=0, exclusive=True)
    check_count("batch_size", batch_size)
    check_flag("progress", progress)
    return wanted
