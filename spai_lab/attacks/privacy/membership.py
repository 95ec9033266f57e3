r"""Was this input in the training set? Membership inference from the loss, and with shadow models.

A model is surer of what it was trained on. The attacker has the input, its label, and a `Query`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spai_lab.attacks.privacy.copying import targets_of
from spai_lab.attacks.privacy.shadows import Shadows, check_known
from spai_lab.checks import check_classes, check_count, check_images, check_labels, check_number
from spai_lab.models import initialized
from spai_lab.query import Query, check_query
from spai_lab.threat import fresh_generator

Answers = tuple[Tensor, Tensor]


def membership_loss(query: Query, x: Tensor, y: Tensor) -> Tensor:
    r"""Yeom's attack: an input that costs the model little was probably trained on.

    $s(x, y) = -L(f(x), y) = \log p_y(x)$. The paper says "member" where the loss is at most the mean training loss,
    which the owner may have published; any other threshold gives another point of the ROC curve.

    Args:
        query: any level. From labels alone the score has two values, for right and for wrong; from the likeliest
            classes, $p_y$ is what they leave over where y is not among them.
        x: inputs `(N, C, H, W)` in [0, 1], of which the attacker wonders.
        y: their labels `(N,)`, int64.
    Returns:
        scores `(N,)`, finite, at most 0; higher: more likely a member.
    Raises:
        ValueError: names the argument.
    Reference: Yeom 2018, arXiv 1709.01604, adversary 2 (the loss) and, from labels, adversary 1.
    Survey: Private AI, threats by a user.
    Simplified: the paper compares the densities of the error among members and others; a threshold does the same where
        they cross once.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> membership_loss(Query(model, "scores"), torch.rand(3, 1, 2, 2), torch.tensor([0, 1, 0])).shape
    torch.Size([3])
    """
    check_query(query)
    check_images(x)
    check_labels(y, x)
    return confidences(query, query(x), y)[0].log()


def membership_shadow(
    query: Query,
    x: Tensor,
    y: Tensor,
    shadows: Shadows,
    x_shadow: Tensor,
    y_shadow: Tensor,
    *,
    hidden: int = 64,
    steps: int = 200,
    learning_rate: float = 0.01,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Shokri's attack: a classifier, one for each class, that learned from shadow models how members are answered.

    For each shadow model and each input, the pair (answer vector $\mathbf{p}$, trained on or not) is a training example
    of the attack model of class y; then $s(x, y) = \log \frac{\Pr(\text{in} \mid \mathbf{p}, y)}
    {\Pr(\text{out} \mid \mathbf{p}, y)}$ for what the target says.

    Args:
        query: the target, any level; the shadow models are looked at through the same window.
        x: inputs `(N, C, H, W)` in [0, 1], of which the attacker wonders.
        y: their labels `(N,)`, int64.
        shadows: models that the attacker trained, about like the target.
        x_shadow: the inputs from which those were trained, `(M, C, H, W)` in [0, 1].
        y_shadow: their labels `(M,)`, int64.
        hidden: units of an attack model's hidden layer.
        steps: of Adam, over all examples of a class at once.
        learning_rate: above 0.
        generator: draws the attack models' first weights; None draws a fresh one.
    Returns:
        scores `(N,)`, the attack model's log-odds; higher: more likely a member. 0 for a class without shadow inputs.
    Raises:
        ValueError: names the argument.
    Reference: Shokri 2017, arXiv 1610.05820, sections V-B to V-E.
    Survey: Private AI, threats by a user.
    Simplified: the shadow models' inputs may overlap, with those in question too, and members and others count alike
        whatever their number.

    >>> from spai_lab.attacks.privacy.shadows import random_halves, train_shadows
    >>> from spai_lab.models import softmax_regression
    >>> build = lambda generator: softmax_regression((1, 2, 2), 2, generator=generator)
    >>> x, y = torch.rand(8, 1, 2, 2), torch.arange(8) % 2
    >>> shadows = train_shadows(x, y, random_halves(4, 8), build, progress=False)
    >>> membership_shadow(Query(shadows.model(0), "scores"), x, y, shadows, x, y, steps=5).shape
    torch.Size([8])
    """
    check_query(query)
    check_images(x)
    check_labels(y, x)
    check_known(x_shadow, y_shadow, shadows)
    check_count("hidden", hidden)
    check_count("steps", steps)
    check_number("learning_rate", learning_rate, low=0, exclusive=True)
    generator = fresh_generator(generator, x.device)
    classes = shadows.logits(x_shadow[:1]).shape[-1]
    check_classes(y, torch.empty(0, classes))
    seen = torch.stack([targets_of(w, w(x_shadow), classes) for w in windows(query, shadows)])
    asked = targets_of(query, query(x), classes)
    scores = torch.zeros(len(x), dtype=asked.dtype)
    for label in y.unique():
        of_class = y_shadow == label
        if of_class.any():
            examples, member = seen[:, of_class].flatten(0, 1), shadows.inside[:, of_class].flatten()
            attack = attack_model(examples, member, hidden, steps, learning_rate, generator)
            with torch.no_grad():
                scores[y == label] = attack(asked[y == label])[:, 0]
    return scores


def attack_model(
    examples: Tensor, member: Tensor, hidden: int, steps: int, learning_rate: float, generator: torch.Generator
) -> nn.Module:
    """A network with one hidden layer that tells answers to members from others: `(N, K)` to log-odds `(N, 1)`."""
    with torch.device("meta"):
        layers = [nn.Linear(examples.shape[1], hidden), nn.ReLU(), nn.Linear(hidden, 1)]
    model = initialized(layers, generator).to(examples.dtype)
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    target = member.to(examples.dtype)
    counts = torch.stack([(~member).sum(), member.sum()]).clamp_min(1)
    weight = (len(member) / (2 * counts))[member.long()].to(examples.dtype)
    for _ in range(steps):
        loss = F.binary_cross_entropy_with_logits(model(examples)[:, 0], target, weight)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def windows(query: Query, shadows: Shadows) -> list[Query]:
    """The shadow models behind the same window as the target: what is hidden there is hidden here."""
    return [Query(shadows.model(s), query.reveals, decimals=query.decimals) for s in range(len(shadows))]


def confidences(query: Query, answer: Tensor | Answers, y: Tensor) -> Answers:
    r"""What the answer says of the true class, and of all others together: $p_y$ and $1 - p_y$, as far as it tells.

    Args:
        query: any level.
        answer: what it said of N inputs.
        y: their labels `(N,)`, int64.
    Returns:
        both `(N,)`, float64, positive: 0 counts as half of the last decimal that is revealed, or, without rounding, as
        the smallest number of the answer's type. They need not add to 1: each is as exact as the answer allows.

    >>> query = Query(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), "labels")
    >>> label = query(torch.zeros(1, 1, 2, 2))
    >>> right, wrong = confidences(query, label, label)
    >>> right.item(), wrong.item() < 1e-30
    (1.0, True)
    """
    shown = answer[0] if isinstance(answer, tuple) else answer
    least = torch.finfo(shown.dtype if shown.is_floating_point() else torch.float32).tiny
    if query.decimals is not None and query.reveals not in ("labels", "logits"):
        least = 0.5 * 10.0**-query.decimals
    if query.reveals == "labels":
        true = (answer == y).double()
        others = 1 - true
    elif isinstance(answer, tuple):
        probabilities, hit = answer[0].double(), answer[1] == y[:, None]
        left_over = (1 - probabilities.sum(1)).clamp_min(0)
        true = torch.where(hit.any(1), (probabilities * hit).sum(1), left_over.minimum(probabilities[:, -1]))
        others = torch.where(hit.any(1), (probabilities * ~hit).sum(1) + left_over, 1 - true)
    else:
        check_classes(y, answer)
        log_p = answer.double().log_softmax(1) if query.reveals == "logits" else answer.double().log()
        is_true = F.one_hot(y, answer.shape[1]).bool()
        true = log_p[is_true].exp()
        others = log_p.masked_fill(is_true, -torch.inf).logsumexp(1).exp()
    return true.clamp_min(least), others.clamp_min(least)
