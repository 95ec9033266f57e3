"""A model behind an interface: it reveals what it was told to reveal, and counts what it was asked."""

import re
from collections.abc import Callable

import torch
from torch import Tensor, nn

from spai_lab.checks import check_callable, check_count, check_images, check_model, describe
from spai_lab.threat import logits_of


class Query:
    r"""All that a black-box attacker sees of a model.

    One query is one image shown to the model. A query belongs to the attacked image for whose sake it is asked, from
    the first one on: those that look for a starting point count too.

    Args:
        model: `(N, C, H, W)` in [0, 1] to logits `(N, K)`; cannot be reached through the query.
        reveals: "labels" (the likeliest class), "top-3" or another number (the likeliest classes and their
            probabilities), "scores" (all probabilities) or "logits".
        decimals: round what is revealed to so many decimals; None reveals it all.
        cap: queries that each attacked image may cost; None sets no limit.
    Raises:
        ValueError: names the argument.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    >>> query = Query(model, "labels", cap=2)
    >>> query(torch.zeros(2, 1, 2, 2)).shape, query.counts, query.total
    (torch.Size([2]), tensor([1, 1]), 2)
    >>> query.afford(torch.tensor([0, 1]), 2), query.exhausted
    (tensor([False, False]), tensor([True, True]))
    """

    def __init__(
        self, model: nn.Module, reveals: str = "logits", *, decimals: int | None = None, cap: int | None = None
    ) -> None:
        check_callable("model", model)
        top = re.fullmatch(r"top-([1-9]\d*)", reveals) if isinstance(reveals, str) else None
        if not top and reveals not in ("labels", "scores", "logits"):
            raise ValueError(f"reveals is {describe(reveals)}; accepted: 'labels', 'top-3', 'scores', 'logits'")
        for name, value, low in (("decimals", decimals, 0), ("cap", cap, 1)):
            if value is not None:
                check_count(name, value, low=low)
        self.reveals, self.decimals, self.cap = reveals, decimals, cap
        self._answer = answering(model, reveals, int(top[1]) if top else None)
        self.restart()

    def restart(self) -> None:
        """Forget what was counted: another attack begins."""
        self.counts = torch.zeros(0, dtype=torch.int64)
        self.exhausted = torch.zeros(0, dtype=torch.bool)
        self.total = 0

    def __call__(self, x: Tensor, images: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """What the model reveals of `x`.

        Args:
            x: what to show it, `(N, C, H, W)` in [0, 1].
            images: `(N,)`, int64, for the sake of which attacked image each is shown: its number in the attacked
                batch, several rows may name the same one; None stands for 0 to N - 1.
        Returns:
            labels `(N,)`; or probabilities and classes, `(N, k)` each, the likeliest first; or scores or logits
            `(N, K)`. Detached.
        Raises:
            ValueError: names the argument; an image would exceed the cap (`afford` tells before).
        """
        check_images(x)
        images = torch.arange(len(x)) if images is None else images
        self._grow(check_numbers(images))
        if len(images) != len(x):
            raise ValueError(f"images is {describe(images)}; accepted: one number for each of {len(x)}")
        images = images.cpu()
        counts = self.counts.index_add(0, images, torch.ones_like(images))
        if self.cap is not None and counts.gt(self.cap).any():
            raise ValueError(f"images asks more than cap = {self.cap} queries for one image; `afford` tells before")
        answer = self._round(self._answer(x))
        self.counts, self.total = counts, self.total + len(x)
        return answer

    def afford(self, images: Tensor, queries: int = 1) -> Tensor:
        """Which of these images may cost `queries` more; the others are marked in `exhausted`.

        Args:
            images: numbers in the attacked batch, `(M,)`, int64.
            queries: how many each is about to cost.
        Returns:
            bool `(M,)`.
        Raises:
            ValueError: names the argument.
        """
        check_count("queries", queries, low=0)
        self._grow(check_numbers(images))
        if self.cap is None:
            return torch.ones_like(images, dtype=torch.bool)
        places = images.cpu()
        affordable = self.counts[places] + queries <= self.cap
        self.exhausted[places[~affordable]] = True
        return affordable.to(images.device)

    def require(self, *levels: str) -> None:
        """Raise `ValueError` unless the query reveals one of these levels.

        >>> Query(nn.Flatten(), "labels").require("scores", "logits")
        Traceback (most recent call last):
        ValueError: query reveals 'labels'; accepted: one that reveals 'scores' or 'logits'
        """
        if self.reveals not in levels:
            wanted = " or ".join(map(repr, levels))
            raise ValueError(f"query reveals {self.reveals!r}; accepted: one that reveals {wanted}")

    def _grow(self, images: int) -> None:
        """Make room for the counts of so many attacked images."""
        more = images - len(self.counts)
        if more > 0:
            self.counts = torch.cat([self.counts, self.counts.new_zeros(more)])
            self.exhausted = torch.cat([self.exhausted, self.exhausted.new_zeros(more)])

    def _round(self, answer: Tensor | tuple[Tensor, Tensor]) -> Tensor | tuple[Tensor, Tensor]:
        """The answer to the decimals that are revealed."""
        if self.decimals is None or self.reveals == "labels":
            return answer
        if isinstance(answer, tuple):
            return answer[0].round(decimals=self.decimals), answer[1]
        return answer.round(decimals=self.decimals)


def answering(model: nn.Module, reveals: str, k: int | None) -> Callable[[Tensor], Tensor | tuple[Tensor, Tensor]]:
    """What is revealed, as a function of what is shown: only this function holds the model."""

    @torch.no_grad()
    def answer(x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        check_model(model, x)
        logits = logits_of(model, x, torch.zeros(len(x), dtype=torch.int64, device=x.device))
        if reveals == "labels":
            return logits.argmax(1)
        if reveals == "logits":
            return logits.detach().clone()
        scores = logits.softmax(1)
        return scores if k is None else tuple(scores.topk(min(k, scores.shape[1])))

    return answer


def check_numbers(images: Tensor) -> int:
    """How many images there are at least; raise `ValueError` unless `images` holds numbers of attacked images.

    >>> check_numbers(torch.tensor([4, 0]))
    5
    """
    numbers = isinstance(images, Tensor) and images.dtype == torch.int64 and images.ndim == 1
    low, high = images.aminmax() if numbers and len(images) else (0, -1)
    if not numbers or low < 0:
        raise ValueError(f"images is {describe(images)}; accepted: int64 numbers from 0, of shape (M,)")
    return int(high) + 1


def check_query(query: Query, *levels: str) -> None:
    """Raise `ValueError` unless `query` is a `Query` that reveals one of these levels; without levels any will do.

    >>> check_query(nn.Flatten(), "scores", "logits")
    Traceback (most recent call last):
    ValueError: query is Flatten(start_dim=1, end_dim=-1); accepted: a Query, which holds the model
    """
    if not isinstance(query, Query):
        raise ValueError(f"query is {describe(query)}; accepted: a Query, which holds the model")
    if levels:
        query.require(*levels)


def log_scores(query: Query, x: Tensor, images: Tensor | None = None) -> Tensor:
    """What score-based attacks reason with: logits, or the logarithms of the probabilities, which have equal margins.

    Args:
        query: reveals "scores" or "logits".
        x: what to show, `(N, C, H, W)` in [0, 1].
        images: as in `Query`.
    Returns:
        `(N, K)`, finite: a probability that was rounded to 0 counts as the smallest number there is.
    """
    query.require("scores", "logits")
    answer = query(x, images)
    return answer if query.reveals == "logits" else answer.clamp_min(torch.finfo(answer.dtype).tiny).log()


def answered(query: Query, x: Tensor, images: Tensor | None = None) -> Tensor:
    """The likeliest class `(N,)`, whatever the level at which the query answers; what decision-based attacks see."""
    answer = query(x, images)
    if isinstance(answer, tuple):
        return answer[1][:, 0]
    return answer if query.reveals == "labels" else answer.argmax(1)
