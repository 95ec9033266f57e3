"""Four bad submissions, one of each kind, as texts: what a lecturer shows before a class hands its own in."""

from collections.abc import Iterator

from spai_lab.arena.arena import arena_attack, arena_defense
from spai_lab.arena.result import Result
from spai_lab.arena.submission import Budget

EXAMPLES = {
    "broken": ("attack", "def broken(model, x, y, eps)\n    return x\n"),
    "slow": ("attack", "def slow(model, x, y, eps):\n    while True:\n        x = x.clone()\n"),
    "crashing": ("attack", "def crashing(model, x, y, eps):\n    return x + eps * model.slope(x)\n"),
    "cheating": (
        "defense",
        "import torch\n\ndef cheating(network, x, y):\n"
        "    return lambda images: network(images.flip(3)) if torch.is_grad_enabled() else network(images)\n",
    ),
}


def examples(data: str = "digits") -> Iterator[tuple[str, str, Result]]:
    """Run them, each within a second or two.

    Args:
        data: "digits" or "mnist".
    Yields:
        the kind, what was submitted, and what came of it.
    """
    settings = {"data": data, "images": 8, "seed": 0, "progress": False, "budget": Budget(seconds=1.0)}
    for kind, (what, text) in EXAMPLES.items():
        judged = (
            arena_attack(text, against=["no defense"], **settings)
            if what == "attack"
            else arena_defense(text, compare=False, **settings)
        )
        yield kind, text.strip(), judged
