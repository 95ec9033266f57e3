r"""Defensive distillation: a second network learns the first one's soft answers, and its gradients vanish."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spai_lab.checks import check_callable, check_generator, check_images, check_like, check_number, describe
from spai_lab.threat import logits_of


def softened(
    model: nn.Module, x: Tensor, y: Tensor, *, temperature: float = 100.0, generator: torch.Generator | None = None
) -> Tensor:
    r"""The teacher's loss: cross-entropy at a temperature, so that the logits grow until the softmax is sure of them.

    $-\frac{1}{N} \sum_i \log F_{y_i}(x_i)$ with $F(x) = \mathrm{softmax}(z(x) / T)$.

    Args:
        model: the teacher, `(N, C, H, W)` in [0, 1] to logits `(N, K)`.
        x: inputs of a batch, float `(N, C, H, W)` in [0, 1], N at least 1.
        y: labels `(N,)`, int64.
        temperature: T, above 0; 1 is ordinary training.
        generator: not used, since nothing is random; here so that every loss is called alike.
    Returns:
        the loss, a scalar that depends on the weights.
    Raises:
        ValueError: names the argument.
    Reference: Papernot 2015, arXiv 1511.04508, section III (the first network).
    Survey: defenses against evasion, gradient masking.

    >>> x, y = torch.tensor([[[[0.0, 0.5]]]]), torch.tensor([1])
    >>> softened(nn.Flatten(), x, y, temperature=1.0), softened(nn.Flatten(), x, y)
    (tensor(0.4741), tensor(0.6907))
    """
    check_loss(x, temperature, generator)
    return F.cross_entropy(logits_of(model, x, y) / temperature, y)


def defensive_distillation(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    teacher: nn.Module,
    temperature: float = 100.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""The student's loss: match the probabilities that a teacher gives at the temperature, not the labels.

    $-\frac{1}{N} \sum_i \sum_k F_k(x_i) \log F^d_k(x_i)$ with $F(x) = \mathrm{softmax}(z(x) / T)$ of the teacher and
    $F^d$ likewise of the student. The student is used at T = 1, as any model: its logits are then about T times those
    of ordinary training, its softmax is 1 for one class and 0 for the others up to rounding, and the gradient of the
    cross-entropy is exactly zero. The order of the logits, and with it every adversarial example, is still there.

    Args:
        model: the student, `(N, C, H, W)` in [0, 1] to logits `(N, K)`, built like the teacher.
        x: inputs of a batch, float `(N, C, H, W)` in [0, 1], N at least 1.
        y: labels `(N,)`, int64; only so that every loss is called alike: the teacher's answers take their place.
        teacher: trained with `softened` at the same temperature, to logits `(N, K)`; runs in the mode in which it is
            and does not learn.
        temperature: T, above 0; the paper tries 1 to 100.
        generator: not used, since nothing is random.
    Returns:
        the loss, a scalar that depends on the student's weights.
    Raises:
        ValueError: names the argument.
    Reference: Papernot 2015, arXiv 1511.04508, section III (the distilled network).
    Survey: defenses against evasion, gradient masking.
    Simplified: the teacher labels each batch when the student sees it, augmented or not; the paper labels the training
        set once, which is the same without augmentation.

    >>> x, y = torch.tensor([[[[0.0, 0.5]]]]), torch.tensor([1])
    >>> unsure = lambda x: torch.zeros(len(x), 2)
    >>> defensive_distillation(nn.Flatten(), x, y, teacher=unsure, temperature=1.0)
    tensor(0.7241)
    """
    check_loss(x, temperature, generator)
    check_callable("teacher", teacher)
    with torch.no_grad():
        taught = logits_of(teacher, x, y)
    logits = logits_of(model, x, y)
    check_like("what teacher returns", taught, logits)
    return F.cross_entropy(logits / temperature, (taught / temperature).softmax(1))


def distillation_view(defended: nn.Module, *, temperature: float) -> nn.Module:
    r"""What an attacker who knows of the distillation climbs: the logits at the temperature of the training.

    $z(x) / T$: the answers are the same, their softmax is no longer saturated. Attacks on the logits themselves, such
    as `carlini_wagner`, need no view.

    Args:
        defended: the student, `(N, C, H, W)` in [0, 1] to logits `(N, K)`.
        temperature: T, above 0; a guess will do.
    Returns:
        a model like any other, with the parameters of `defended`.
    Raises:
        ValueError: names the argument.
    Reference: Carlini 2016, arXiv 1607.04311 (the inputs of the softmax divided by T before the gradient is taken).
    Survey: defenses against evasion, gradient masking.

    >>> distillation_view(nn.Flatten(), temperature=4.0)(torch.tensor([[[[0.0, 1.0]]]]))
    tensor([[0.0000, 0.2500]])
    """
    check_callable("defended", defended)
    check_temperature(temperature)
    return Softer(defended, temperature)


class Softer(nn.Module):
    """A model whose logits are divided by a temperature."""

    def __init__(self, model: nn.Module, temperature: float) -> None:
        super().__init__()
        self.model, self.temperature = model, temperature
        self.training = getattr(model, "training", False)

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x) / self.temperature


def check_loss(x: Tensor, temperature: float, generator: torch.Generator | None) -> None:
    """Raise `ValueError` unless there is a batch, a temperature and a generator or none."""
    check_images(x)
    if len(x) == 0:
        raise ValueError(f"x is {describe(x)}; accepted: at least one input")
    check_temperature(temperature)
    check_generator(generator, x.device)


def check_temperature(temperature: float) -> None:
    """Raise `ValueError` unless `temperature` is a finite number above 0."""
    check_number("temperature", temperature, low=0, exclusive=True)
