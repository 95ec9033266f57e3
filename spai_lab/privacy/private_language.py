r"""Private training of a language model: a record is a line of text, and every line's gradient is clipped by itself.

`vmap` cannot run the library's gated recurrent unit, so that it is written out here, one character after the other.
What a weight's gradient is made of, the inputs of its layer and the slopes of the loss at its outputs, is met on the
way.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm

from spai_lab.attacks.privacy.memorization import IGNORED, LanguageModel, check_language_model, check_text, padded
from spai_lab.checks import check_count, check_flag, check_number, describe
from spai_lab.data.sentences import Text
from spai_lab.privacy.dp_sgd import COVERED, guaranteed, poisson_batches, private_gradient
from spai_lab.privacy.guarantee import Guarantee
from spai_lab.privacy.per_example import Gradients, check_clip
from spai_lab.threat import fresh_generator
from spai_lab.training.loop import diverged, schedule


def line_gradients(model: LanguageModel, given: Tensor, wanted: Tensor) -> Gradients:
    r"""The gradient of each line's loss, $g_i = \nabla_\theta \sum_t -\log p_\theta(x_{i,t} \mid x_{i,1} \dots)$.

    With $a_t = W_i x_t + b_i$ and $c_t = W_h h_{t-1} + b_h$, in three parts each,
    $r = \sigma(a^r + c^r)$, $z = \sigma(a^z + c^z)$, $n = \tanh(a^n + r \odot c^n)$, and
    $h_t = (1 - z) \odot n + z \odot h_{t-1}$. So $\partial L / \partial W_h = \sum_t \frac{\partial L}{\partial c_t}
    h_{t-1}^\top$, and likewise for the others.

    Args:
        model: a `LanguageModel`.
        given: the characters that it reads, `(N, T)`, int64.
        wanted: the characters that come next, `(N, T)`, -100 behind the end of a line; both as `padded` makes them.
    Returns:
        by name of a parameter, `(N, ...)` each, detached.
    Raises:
        ValueError: names the argument.
    Reference: Cho 2014, arXiv 1406.1078 (the unit, with the reset gate where torch puts it).

    >>> model = LanguageModel("|ab", hidden=4)
    >>> gradients = line_gradients(model, *padded(Text.of(["ab", "b"], "|ab")))
    >>> {name: tuple(gradient.shape) for name, gradient in gradients.items() if name.startswith("last")}
    {'last.weight': (2, 3, 4), 'last.bias': (2, 3)}
    """
    check_language_model(model)
    fits = isinstance(given, Tensor) and isinstance(wanted, Tensor) and given.ndim == 2 and given.shape == wanted.shape
    if not fits or given.shape[1] == 0:
        raise ValueError(f"given is {describe(given)}, wanted {describe(wanted)}; accepted: int64 (N, T), both alike")
    theta = {name: parameter.detach() for name, parameter in model.named_parameters()}
    if len(given) == 0:
        return {name: weight.new_zeros(0, *weight.shape) for name, weight in theta.items()}
    W_i, W_h, b_i, b_h = (theta[f"recurrent.{kind}_l0"] for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    x = F.one_hot(given, len(model.characters)).to(W_i)
    a = F.linear(x, W_i, b_i).requires_grad_()
    h = W_h.new_zeros(len(x), W_h.shape[1])
    before, c, after = [], [], []
    with torch.enable_grad():
        for a_t in a.unbind(1):
            c_t = F.linear(h, W_h, b_h)
            c_t = c_t if c_t.requires_grad else c_t.requires_grad_()
            before.append(h)
            c.append(c_t)
            (a_r, a_z, a_n), (c_r, c_z, c_n) = a_t.chunk(3, 1), c_t.chunk(3, 1)
            r, z = (a_r + c_r).sigmoid(), (a_z + c_z).sigmoid()
            n = (a_n + r * c_n).tanh()
            h = (1 - z) * n + z * h
            after.append(h)
        states = torch.stack(after, 1)
        logits = F.linear(states, theta["last.weight"], theta["last.bias"])
        loss = F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), ignore_index=IGNORED, reduction="sum")
    slope_a, slope_out, *slopes_c = torch.autograd.grad(loss, [a, logits, *c])
    slope_c, before_all = torch.stack(slopes_c, 1), torch.stack(before, 1).detach()
    pairs = {
        "recurrent.{}_ih_l0": (slope_a, x),
        "recurrent.{}_hh_l0": (slope_c, before_all),
        "last.{}": (slope_out, states.detach()),
    }
    weights = {name.format("weight"): slope.mT @ read for name, (slope, read) in pairs.items()}
    found = weights | {name.format("bias"): slope.sum(1) for name, (slope, _) in pairs.items()}
    return {name: found[name] for name in theta}


def train_private_language_model(
    text: Text,
    *,
    expected_batch: float,
    noise_multiplier: float,
    clip: float = 1.0,
    sampling_rate: float,
    steps: int,
    learning_rate: float = 0.04,
    delta_dp: float,
    hidden: int = 64,
    generator: torch.Generator | None = None,
    progress: bool = True,
) -> tuple[LanguageModel, Guarantee]:
    r"""Train a model to say which character is next, so that no single line makes much of a difference.

    $\tilde g = \frac{1}{B} \left( \sum_{i \in S} \min(1, C / \|g_i\|) \, g_i + N(0, \sigma^2 C^2 1) \right)$ with i a
    line; Adam moves along $\tilde g$. What it makes of what was released already costs no privacy.

    Args:
        text: what to learn; each line is a record. A sentence that stands in k lines is k records: for it only the
            guarantee of groups holds, $(k \epsilon, \delta (e^{k \epsilon} - 1) / (e^\epsilon - 1))$.
        expected_batch: B, by which a step is divided, above 0: a number known beforehand, such as q times about how
            many lines there are; never q times how many there are, which one line more would change.
        noise_multiplier: $\sigma$, the noise in units of C, at least 0; 0 promises nothing.
        clip: C, the bound of each line's gradient in L2, above 0.
        sampling_rate: q, above 0, at most 1: each line takes part in a step by a coin of its own.
        steps: how many, at least 1.
        learning_rate: Adam's highest, reached after a quarter of the steps; falls to zero.
        delta_dp: $\delta$, above 0 and below 1.
        hidden: numbers in the model's state.
        generator: draws first weights, batches and noise: a demonstration, not private; None draws a fresh one.
        progress: show a bar.
    Returns:
        the model, in evaluation mode, and what its weights promise, for one line added or removed.
    Raises:
        ValueError: names the argument.
        spai_lab.training.Diverged: a gradient is no longer finite.
    Reference: Abadi 2016, arXiv 1607.00133, algorithm 1; Carlini 2018, arXiv 1802.08232, section 9 (as a defense).
    Simplified: floating-point noise.

    >>> text = Text.of(["anna is calm", "ben is calm"])
    >>> settings = {"expected_batch": 1, "noise_multiplier": 2.0, "sampling_rate": 0.5, "steps": 10, "delta_dp": 0.01}
    >>> model, guarantee = train_private_language_model(text, **settings, hidden=4, progress=False)
    >>> print(guarantee)
    epsilon 2.33 at delta 0.01, one record added or removed; covers the weights after every step
    """
    check_text(text)
    check_clip(clip, noise_multiplier)
    check_count("steps", steps)
    check_number("learning_rate", learning_rate, low=0, exclusive=True)
    check_number("delta_dp", delta_dp, low=0, high=1, exclusive=True)
    check_flag("progress", progress)
    generator = fresh_generator(generator, torch.device("cpu"))
    model = LanguageModel(text.characters, hidden=hidden, generator=generator)
    given, wanted = padded(text)
    batches = poisson_batches(len(given), sampling_rate, steps, generator)
    theta = dict(model.named_parameters())
    optimizer = torch.optim.Adam(theta.values(), lr=learning_rate)
    settings = {"clip": clip, "noise_multiplier": noise_multiplier, "expected_batch": expected_batch}
    bar = tqdm(batches, total=steps, desc="private training", unit="step", disable=not progress)
    for done, batch in enumerate(bar, start=1):
        gradients = line_gradients(model, given[batch], wanted[batch])
        if not all(gradient.isfinite().all() for gradient in gradients.values()):
            raise diverged("A gradient became infinite or NaN", learning_rate)
        release = private_gradient(gradients, **settings, generator=generator)
        for name, parameter in theta.items():
            parameter.grad = release[name]
        optimizer.param_groups[0]["lr"] = learning_rate * schedule(done / (steps + 1))
        optimizer.step()
    guarantee = guaranteed(sampling_rate, noise_multiplier, steps, delta_dp, COVERED)
    for parameter in theta.values():
        parameter.grad = None
    return model.requires_grad_(False).eval(), guarantee
