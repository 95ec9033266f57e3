"""Attacks that never ask for a gradient of the victim: made on other models, they are carried over to it."""

import copy
import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from spai_lab.attacks.evasion.gradient import mim
from spai_lab.checks import (
    check_callable,
    check_count,
    check_images,
    check_labels,
    check_like,
    check_model,
    check_number,
    describe,
)
from spai_lab.metrics import Rate
from spai_lab.query import Query, answered, check_query
from spai_lab.threat import Gradient, fresh_generator, input_gradient, logits_of
from spai_lab.training.loop import fit, in_mode


def substitute(
    query: Query,
    x: Tensor,
    *,
    model: nn.Module,
    rounds: int = 6,
    step: float = 0.1,
    epochs: int = 10,
    learning_rate: float = 1e-2,
    generator: torch.Generator | None = None,
) -> nn.Module:
    r"""Substitute model: train a model on the victim's labels, and ask for more where its decision changes fastest.

    $S_{\rho + 1} = \{x + \lambda \, \mathrm{sign}(J_F[\tilde O(x)]) : x \in S_\rho\} \cup S_\rho$,
    with $\tilde O(x)$ the label that the victim gives and $J_F[\tilde O(x)]$ how the substitute's probability of that
    label changes with the pixels: $-\nabla_x L(F(x), \tilde O(x))$ has the same sign.

    Args:
        query: any level will do, since only the likeliest class is used.
        x: a few inputs like the victim's, floating point `(N, C, H, W)` in [0, 1], N at least 1.
        model: untrained, `(N, C, H, W)` to logits `(N, K)` of the victim's classes; it stays as it is.
        rounds: how often the model is trained, at least 1; before each round but the first the inputs double.
        step: lambda, in pixel units, above 0, at most 1.
        epochs: passes over the inputs in each round.
        learning_rate: the highest of each round, as in `fit`.
        generator: shuffles the training data; None draws a fresh one.
    Returns:
        a trained copy of `model`.
    Raises:
        ValueError: an argument is out of its range, or the cap stops an input at once; names it.
    Reference: Papernot 2016, arXiv 1602.02697, algorithm 1.
    Survey: evasion, black-box.
    Simplified: new inputs are clipped to [0, 1], and trained on by AdamW; each is asked about once, $2^{rounds - 1}$
        queries for every input of `x`, and an input that the cap stops has no more descendants. The periodic change of
        the step's sign and the reservoir sampling, which the paper adds to save queries, are left out.

    >>> victim = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    >>> query = Query(victim, "labels")
    >>> copied = substitute(query, torch.rand(5, 1, 2, 2), model=nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), rounds=3)
    >>> query.counts
    tensor([4, 4, 4, 4, 4])
    """
    check_query(query)
    check_images(x)
    check_count("rounds", rounds)
    check_number("step", step, low=0, high=1, exclusive=True)
    if not isinstance(model, nn.Module):
        raise ValueError(f"model is {describe(model)}; accepted: a torch.nn.Module to train")
    if len(x) == 0:
        raise ValueError(f"x is {describe(x)}; accepted: at least one input")
    generator = fresh_generator(generator, x.device)
    model, images = copy.deepcopy(model), torch.arange(len(x), device=x.device)
    if not query.afford(images).all():
        raise ValueError(f"query has a cap of {query.cap}, which is spent; accepted: one query for each input of x")
    inputs, labels = x.detach(), answered(query, x, images)
    training = {"epochs": epochs, "learning_rate": learning_rate}
    for rho in range(rounds):
        if rho > 0:
            growing = query.afford(images, 2 ** (rho - 1))
            new = jacobian_step(model, inputs[growing], labels[growing], step)
            origins = images[growing]
            inputs, images = torch.cat([inputs, new]), torch.cat([images, origins])
            labels = torch.cat([labels, answered(query, new, origins)]) if len(new) else labels
        with torch.enable_grad():
            fit(model, inputs, labels, **training, generator=generator, progress=False)
    return model


def jacobian_step(model: nn.Module, x: Tensor, labels: Tensor, step: float) -> Tensor:
    """A step that raises the probability of each label fastest, pixel by pixel."""
    if len(x) == 0:
        return x
    with in_mode(model, training=False):
        return (x - step * input_gradient(model, x, labels).sign()).clamp(0, 1)


def transfer(
    surrogates: Sequence[nn.Module],
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    norm: str = "linf",
    steps: int = 10,
    step_size: float | None = None,
    decay: float = 1.0,
    weights: Sequence[float] | None = None,
    targeted: bool = False,
    gradient: Gradient = input_gradient,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Transfer attack: fool models of one's own, all at once, and hope that the victim errs alike.

    $L(x, y) = -\log \sum_k \alpha_k \, \mathrm{softmax}(z^{(k)}(x))_y$, climbed (or descended towards a target) by
    `mim`; with one surrogate this is its cross-entropy.

    Args:
        surrogates: models that the attacker has, `(N, C, H, W)` in [0, 1] to logits `(N, K)`, at least one.
        x: clean inputs, floating point `(N, C, H, W)` in [0, 1].
        y: labels `(N,)`, int64; the target classes if `targeted`.
        eps: radius of the ball, in pixel units of [0, 1].
        norm: "linf" or "l2".
        steps: number of steps, at least 1.
        step_size: in pixel units, above 0; None takes `eps / steps`.
        decay: how much momentum a step keeps, at least 0; 0 gives `bim`.
        weights: alpha, one for each surrogate, above 0, as shares of their sum; None weighs all alike.
        targeted: walk down the loss of `y` rather than up.
        gradient: `(model, x, y) -> gradient`, the hook of an adaptive attack; its model is the `Ensemble`.
        generator: not used, since nothing is random; here so that every attack is called alike.
    Returns:
        `x_adv`, like `x`, in [0, 1] and within `eps` of `x`.
    Raises:
        ValueError: an argument is out of its range; names it.
    Reference: Liu 2016, arXiv 1611.02770, equation 4.
    Survey: evasion, black-box.
    Simplified: the distance is bounded by eps rather than weighed against the loss, and the steps are signed ones with
        momentum (Dong 2018, arXiv 1710.06081) in place of Adam.

    >>> ours, theirs = (nn.Sequential(nn.Flatten(), nn.Linear(4, 3)) for _ in range(2))
    >>> x, y = torch.full((2, 1, 2, 2), 0.5), torch.tensor([0, 2])
    >>> bool((transfer([ours, theirs], x, y, eps=0.1) - x).abs().max() <= 0.1 + 1e-6)
    True
    """
    models = list(surrogates) if isinstance(surrogates, Iterable) and not isinstance(surrogates, nn.Module) else []
    if not models or not all(isinstance(model, nn.Module) for model in models):
        raise ValueError(f"surrogates is {describe(surrogates)}; accepted: a list of at least one torch.nn.Module")
    check_images(x)
    for model in models:
        check_model(model, x)
    ensemble = Ensemble(models, weights)
    return mim(
        models[0] if len(models) == 1 else ensemble,
        x,
        y,
        eps=eps,
        norm=norm,
        steps=steps,
        step_size=step_size,
        decay=decay,
        targeted=targeted,
        gradient=gradient,
        generator=generator,
    )


class Ensemble(nn.Module):
    r"""Several models as one, which any attack can take: $z = \log \sum_k \alpha_k \, \mathrm{softmax}(z^{(k)})$.

    Args:
        models: `(N, C, H, W)` in [0, 1] to logits `(N, K)`; they stay as they are.
        weights: alpha, one for each model, above 0, as shares of their sum; None weighs all alike.
    Raises:
        ValueError: names the argument.

    >>> Ensemble([nn.Flatten(), nn.Flatten()])(torch.zeros(1, 1, 1, 2)).exp()
    tensor([[0.5000, 0.5000]])
    """

    def __init__(self, models: Sequence[nn.Module], weights: Sequence[float] | None = None) -> None:
        super().__init__()
        weights = [1.0] * len(models) if weights is None else weights
        if not isinstance(weights, Sequence) or len(weights) != len(models):
            raise ValueError(f"weights is {describe(weights)}; accepted: {len(models)} numbers, one for each surrogate")
        for weight in weights:
            check_number("weights", weight, low=0, exclusive=True)
        self.models = nn.ModuleList(models)
        self.log_alpha = [math.log(weight / sum(weights)) for weight in weights]

    def forward(self, x: Tensor) -> Tensor:
        """The logarithm of the weighted mean of the probabilities, `(N, K)`."""
        some_class = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        parts = [
            logits_of(model, x, some_class).log_softmax(1) + log_alpha
            for model, log_alpha in zip(self.models, self.log_alpha, strict=True)
        ]
        return torch.stack(parts).logsumexp(0)


def transfer_matrix(
    models: Mapping[str, nn.Module],
    x: Tensor,
    y: Tensor,
    attack: Callable[[nn.Module, Tensor, Tensor], Tensor],
) -> dict[str, dict[str, Rate]]:
    """How often what was made on one model fools another, for all pairs.

    Only images that all models read rightly are counted, so that every cell of the table rests on the same ones.

    Args:
        models: by name; each `(N, C, H, W)` in [0, 1] to logits `(N, K)`.
        x: clean inputs `(N, C, H, W)` in [0, 1].
        y: true labels `(N,)`, int64.
        attack: `(model, x, y) -> x_adv`, without a target.
    Returns:
        `rates[made on][shown to]`, the share of images that the second model misreads; it answers with labels alone.
    Raises:
        ValueError: names the argument; `x` too, if no image is read rightly by all models.
    Reference: Liu 2016, arXiv 1611.02770, section 3 (the experiment behind its table 1).
    Survey: evasion, black-box.

    >>> data = torch.eye(3).view(3, 3, 1, 1) / 2
    >>> rates = transfer_matrix({"flat": nn.Flatten()}, data, torch.arange(3), lambda model, x, y: 1 - x)
    >>> rates["flat"]["flat"].value
    1.0
    """
    check_images(x)
    check_labels(y, x)
    check_callable("attack", attack)
    if not isinstance(models, Mapping) or not models:
        raise ValueError(f"models is {describe(models)}; accepted: a mapping from names to at least one model")
    queries = {name: Query(model, "labels") for name, model in models.items()}
    right = [answered(query, x) == y for query in queries.values()] if len(x) else []
    shared = torch.stack(right).all(0) if right else torch.zeros(0, dtype=torch.bool, device=x.device)
    if not shared.any():
        raise ValueError(f"x is {describe(x)}, none of which all models read rightly; accepted: at least one")
    x, y = x[shared], y[shared]
    rates = {}
    for made_on, model in models.items():
        x_adv = attack(model, x, y)
        check_like("what attack returns", x_adv, x)
        misread = {shown_to: answered(query, x_adv) != y for shown_to, query in queries.items()}
        rates[made_on] = {shown_to: Rate(int(wrong.sum()), len(x)) for shown_to, wrong in misread.items()}
    return rates
