"""The rules of the arena, each as the finding that names its breach; and what should not be believed at once."""

from spai_lab.arena.findings import Finding

# --- an attack that breaks the rules ----------------------------------------------------------------------------------


def other_kind(came: str, accepted: str) -> Finding:
    """The result is no such tensor."""
    return Finding(
        "wrong result",
        f"It returns {came}; accepted: {accepted}.",
        "Each image needs its own answer.",
        "Check shape and dtype of what you return; is a `return` missing?",
    )


def not_finite() -> Finding:
    """NaN or infinity among the pixels."""
    return Finding(
        "not finite",
        "It returns NaN or infinite pixels.",
        "A model's answer to those means nothing.",
        "Look for a division by zero, such as by the norm of a gradient of zero.",
    )


def out_of_range(low: float, high: float) -> Finding:
    """Pixels that no image has."""
    return Finding(
        "out of range",
        f"It returns pixels from {low:.4g} to {high:.4g}.",
        "Images have pixels from 0 to 1; no camera delivers others.",
        "End with `.clamp(0, 1)`.",
    )


def outside_the_ball(count: int, furthest: float, eps: float, norm: str) -> Finding:
    """Images that were moved too far."""
    words = "in L-inf" if norm == "linf" else "in L2"
    return Finding(
        "outside the ball",
        f"It moves {count} image{'s' * (count != 1)} further than eps = {eps:g} {words}, one by {furthest:.4g}.",
        "With no limit anybody fools any model.",
        "Project after the last step: `project(x_adv, x, eps, norm)`, chapter 02.",
    )


def changed_the_model(name: str) -> Finding:
    """The attack trained, or broke, its copy of the victim."""
    return Finding(
        "changes the model",
        f"After it ran, `{name}` of its copy of the model is another.",
        "Who may change the model need not attack it. It gained nothing: results are judged on a model "
        "that it never touched.",
        "Work on `copy.deepcopy(model)`, or ask for gradients with `torch.autograd.grad`.",
    )


def over_budget(what: str, allowed: int) -> Finding:
    """It asked more than it may."""
    return Finding(
        "over budget",
        f"It asks for more than {allowed:,} {what} an image.",
        "Attacks can be compared only at the same price.",
        "Count as you go, and return the best you have when the budget is spent.",
    )


def told_labels(share: float) -> Finding:
    """The true labels are in what it printed."""
    return Finding(
        "prints what it should not know",
        f"It prints the true labels of the images, {100 * share:.0f} % of them in their order.",
        "The arena never gave them to it, so it has found the images somewhere else.",
        "Use what the function is given, and nothing else.",
    )


# --- a defense that breaks the rules, or that should not be believed yet ----------------------------------------------


def no_model(came: str) -> Finding:
    """The function returned something that cannot answer."""
    return Finding(
        "no model",
        f"It returns {came}; accepted: a model, from images `(N, C, H, W)` to logits `(N, K)`.",
        "There is nothing to attack.",
        "Return the `nn.Module` itself.",
    )


def no_logits(message: str) -> Finding:
    """The answers are no logits."""
    return Finding(
        "no logits",
        f"Its answers do not fit: {message}.",
        "Attacks and judge read logits.",
        "Return finite scores `(N, K)`, before the softmax.",
    )


def depends_on_the_batch(count: int, total: int) -> Finding:
    """An image's answer depends on its companions."""
    return Finding(
        "depends on the batch",
        f"{count} of {total} images are read otherwise when they come in another order, or alone.",
        "An image must stand by itself; who reads the whole batch reads the test.",
        "Look for statistics over the batch (`BatchNorm` in training mode, `x.mean(0)`), and call `eval()`.",
    )


def remembers(count: int, total: int) -> Finding:
    """An image's answer depends on what was asked before."""
    return Finding(
        "remembers",
        f"Asked again after the attacks, {count} of {total} clean images get another answer.",
        "A model that tires, hides or changes sides while it is judged is not the model that was submitted.",
        "Keep no state between two calls.",
    )


def recognizes(known: str, new: str) -> Finding:
    """It knows the public images by heart."""
    return Finding(
        "recognizes the images",
        f"On the public test images it is right on {known}; on the same ones, moved a little in secret, on {new}.",
        "It answers from a list, not from what an image shows.",
        "Learn from the training images alone.",
    )


def constant() -> Finding:
    """One answer for everything."""
    return Finding(
        "constant",
        "It gives every image the same class.",
        "Nothing can turn it, and it is of no use.",
        "Look at its accuracy on clean images first.",
    )


def gradient_gone(count: int, total: int) -> Finding:
    """Zero gradients: a hint of masking, no offense."""
    return Finding(
        "masked gradient",
        f"{count} of {total} images have no gradient at all.",
        "Attacks that climb it cannot move, which is no robustness (chapter 07).",
        "So the numbers to believe are those of Square, transfer and the stand-in.",
        fatal=False,
    )


def gradient_misleads(count: int, total: int) -> Finding:
    """Gradients that do not point uphill."""
    return Finding(
        "misleading gradient",
        f"A tiny step along the gradient raises the loss on {count} of {total} images only.",
        "A true gradient raises it nearly everywhere; this one is rugged, random or made up (chapter 07).",
        "So the numbers to believe are those of the attacks that do not climb it.",
        fatal=False,
    )


def black_box_wins(black: str, count: int) -> Finding:
    """A blind attack found more than one that sees everything."""
    return Finding(
        "blind beats seeing",
        f"{black} breaks {count} images that every attack on its gradient leaves standing.",
        "More knowledge should never hurt an attacker: the gradient is masked (chapter 07), or the attack too short.",
        "Take the smallest number as an upper bound of what an attacker would leave.",
        fatal=False,
    )


def randomized(draws: int) -> Finding:
    """Two calls, two answers: allowed, and then judged over several draws."""
    return Finding(
        "randomized",
        "Two calls on the same images differ.",
        f"That is allowed; each image is shown {draws} times, and stands if most answers are right.",
        "An attack that averages over your draws (EOT, chapter 03) was added.",
        fatal=False,
    )
