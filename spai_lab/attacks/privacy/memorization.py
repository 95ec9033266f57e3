r"""Unintended memorization: a secret that a language model was trained on, measured by its rank among all others.

A canary is a line with blanks, such as "the code of anna is ####"; the randomness space R is all that may fill them. A
model that has only learned the language finds each filling about as likely; one that has memorized the secret does not.
"""

import heapq
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from scipy.integrate import quad
from scipy.stats import kstest, skewnorm
from scipy.stats.distributions import rv_frozen
from torch import Tensor, nn
from tqdm.auto import tqdm

from spai_lab.checks import check_count, check_flag, check_generator, check_number, describe
from spai_lab.data.sentences import Text, check_characters, check_codes, encode
from spai_lab.threat import fresh_generator
from spai_lab.training.loop import finite, in_mode, schedule, shuffled

AT_ONCE = 1000  # sequences of a forward pass
ENUMERABLE = 10**6  # candidates
IGNORED = -100  # what cross-entropy takes for no target
SETTLED = 1e-9  # chances below it are integrated on their own, since a distribution function rounds them off


class LanguageModel(nn.Module):
    """A recurrent network that reads characters one after the other and says after each which one is next.

    Args:
        characters: the alphabet, K characters; the first ends a line.
        hidden: numbers in the state of its gated recurrent unit.
        generator: draws the first weights; None draws a fresh one.
    Raises:
        ValueError: names the argument.

    >>> LanguageModel("|ab")(torch.zeros(2, 5, dtype=torch.int64)).shape
    torch.Size([2, 5, 3])
    """

    def __init__(self, characters: str, *, hidden: int = 64, generator: torch.Generator | None = None) -> None:
        super().__init__()
        check_characters(characters)
        check_count("hidden", hidden)
        generator = fresh_generator(generator, torch.device("cpu"))
        self.characters = characters
        with torch.device("meta"):
            self.recurrent = nn.GRU(len(characters), hidden, batch_first=True)
            self.last = nn.Linear(hidden, len(characters))
        self.to_empty(device="cpu")
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.uniform_(-(hidden**-0.5), hidden**-0.5, generator=generator)

    def forward(self, codes: Tensor) -> Tensor:
        """From codes `(N, T)` to the logits of the character after each of them, `(N, T, K)`."""
        one_hot = F.one_hot(codes, len(self.characters)).to(self.last.weight)
        return self.last(self.recurrent(one_hot)[0])


@dataclass(frozen=True)
class Canary:
    """The format of a secret: a prefix that everybody knows, then blanks, each filled at random.

    Args:
        prefix: what comes before the blanks, at least one character.
        blanks: how many there are, at least 1.
        symbols: what each may be filled with, at least 2 characters, each once.
    Raises:
        ValueError: names the argument.

    >>> canary = Canary("the code of anna is ", 4)
    >>> canary.size, canary.secret(4827), str(canary)
    (10000, '4827', 'the code of anna is ####')
    """

    prefix: str
    blanks: int
    symbols: str = "0123456789"

    def __post_init__(self) -> None:
        if not isinstance(self.prefix, str) or not self.prefix:
            raise ValueError(f"prefix is {describe(self.prefix)}; accepted: a string of at least one character")
        check_count("blanks", self.blanks)
        symbols = self.symbols
        if not isinstance(symbols, str) or len(symbols) < 2 or len(set(symbols)) < len(symbols):
            raise ValueError(f"symbols is {describe(symbols)}; accepted: at least 2 characters, each once")

    @property
    def size(self) -> int:
        """The number of candidates, |R|."""
        return len(self.symbols) ** self.blanks

    def secret(self, number: int) -> str:
        """The candidate with this number, from 0 to |R| - 1, in the order of the symbols."""
        check_count("number", number, low=0)
        check_number("number", number, low=0, high=self.size - 1)
        digits = [number // len(self.symbols) ** place % len(self.symbols) for place in range(self.blanks)]
        return "".join(self.symbols[digit] for digit in reversed(digits))

    def number(self, secret: str) -> int:
        """The number of a candidate; undoes `secret`."""
        known = isinstance(secret, str) and len(secret) == self.blanks and set(secret) <= set(self.symbols)
        if not known:
            raise ValueError(f"secret is {describe(secret)}; accepted: {self.blanks} characters of {self.symbols!r}")
        number = 0
        for symbol in secret:
            number = number * len(self.symbols) + self.symbols.index(symbol)
        return number

    def __str__(self) -> str:
        return self.prefix + "#" * self.blanks


@dataclass(frozen=True)
class Exposure:
    """How much a model gives away about a secret.

    Args:
        secret: what was planted.
        exposure: in bits, from 0 to log2 |R|: what trying the candidates in the model's order saves over any order.
        log_perplexity: of the canary with the secret in it, in bits.
        size: the number of candidates, |R|.
        rank: of the secret among all candidates, 1 the likeliest; None where it was estimated from a sample.
        p_value: of the Kolmogorov-Smirnov test of the estimate's distribution, on the sample that it was fitted to, and
            so too friendly; near 0 the estimate is not to be trusted. None where all were counted.
    """

    secret: str
    exposure: float
    log_perplexity: float
    size: int
    rank: int | None = None
    p_value: float | None = None

    def __str__(self) -> str:
        rank = "estimated" if self.rank is None else f"rank {self.rank:,}"
        return f"exposure {self.exposure:.1f} of {math.log2(self.size):.1f} bits ({rank} of {self.size:,})"


@dataclass(frozen=True)
class Extraction:
    """What the search for a secret found.

    Args:
        secret: the likeliest candidate; None if the search gave up.
        log_perplexity: of the canary with it, in bits; infinite if the search gave up.
        opened: how many beginnings of a secret the model was asked to continue.
    """

    secret: str | None
    log_perplexity: float
    opened: int


def train_language_model(
    text: Text,
    *,
    hidden: int = 64,
    epochs: int = 10,
    batch_size: int = 64,
    learning_rate: float = 1e-2,
    generator: torch.Generator | None = None,
    progress: bool = True,
) -> LanguageModel:
    r"""Train a model to say which character is next, line by line.

    $\min_\theta -\sum_i \log_2 \Pr(x_i \mid f_\theta(x_1, \dots, x_{i - 1}))$ over all lines, by AdamW.

    Args:
        text: what to learn.
        hidden: numbers in the model's state.
        epochs: passes over the text.
        batch_size: lines of a step.
        learning_rate: the highest, reached after a quarter of the steps; falls to zero.
        generator: draws the first weights and shuffles the lines; None draws a fresh one.
        progress: show a bar with the time left.
    Returns:
        the model, in evaluation mode.
    Raises:
        ValueError: names the argument.
        Diverged: the loss became infinite or NaN.
    Reference: Carlini 2018, arXiv 1802.08232, section 2.2 and its character-level models.
    Simplified: a gated recurrent unit in place of LSTMs; every line begins with an empty state.

    >>> text = Text.of(["anna is calm", "ben is calm"])
    >>> model = train_language_model(text, epochs=1, progress=False)
    >>> model(text.codes[None]).shape
    torch.Size([1, 25, 38])
    """
    check_text(text)
    for name, value in (("epochs", epochs), ("batch_size", batch_size)):
        check_count(name, value)
    check_number("learning_rate", learning_rate, low=0, exclusive=True)
    check_flag("progress", progress)
    generator = fresh_generator(generator, torch.device("cpu"))
    model = LanguageModel(text.characters, hidden=hidden, generator=generator).train()
    given, wanted = padded(text)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.0)
    steps, done = epochs * math.ceil(len(given) / batch_size), 0
    with torch.enable_grad(), tqdm(total=steps, desc="training", unit="step", disable=not progress) as bar:
        for _ in range(epochs):
            for batch in shuffled(given, batch_size, generator):
                done += 1
                optimizer.param_groups[0]["lr"] = learning_rate * schedule(done / (steps + 1))
                logits = model(given[batch])
                loss = F.cross_entropy(logits.flatten(0, 1), wanted[batch].flatten(), ignore_index=IGNORED)
                finite(loss, learning_rate)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                bar.update()
    return model.requires_grad_(False).eval()


def padded(text: Text) -> tuple[Tensor, Tensor]:
    """What the model is given and what it is to say, `(N, T)` each: every line behind an end, up to its own end.

    >>> given, wanted = padded(Text.of(["ab", "b"], "|ab"))
    >>> given.tolist(), wanted.tolist()
    ([[0, 1, 2], [0, 2, 0]], [[1, 2, 0], [2, 0, -100]])
    """
    ends = (text.codes == 0).nonzero()[:, 0] + 1
    lines = text.codes.tensor_split(ends[:-1])
    wanted = nn.utils.rnn.pad_sequence(lines, batch_first=True, padding_value=IGNORED)
    given = F.pad(wanted, (1, 0))[:, :-1].clamp_min(0)
    return given, wanted


def next_bits(model: LanguageModel, beginnings: Tensor) -> Tensor:
    r"""What each character would cost after the beginning of a line: $-\log_2 \Pr(x_i \mid f_\theta(x_1, \dots))$.

    Args:
        model: codes `(N, T)` to logits `(N, T, K)`, its alphabet in `characters`.
        beginnings: codes `(N, T)`, int64, N at least 1; T may be 0.
    Returns:
        bits, float64 `(N, K)`.
    """
    behind_an_end = F.pad(beginnings, (1, 0))
    with torch.no_grad(), in_mode(model, training=False):
        logits = torch.cat([checked_logits(model, part)[:, -1] for part in behind_an_end.split(AT_ONCE)])
    return -logits.double().log_softmax(1) / math.log(2)


def log_perplexity(model: LanguageModel, sequences: Tensor) -> Tensor:
    r"""How surprising each sequence is, as the beginning of a line, in bits.

    $P_\theta(x_1 \dots x_n) = -\log_2 \Pr(x_1 \dots x_n \mid f_\theta) =
    \sum_{i=1}^n -\log_2 \Pr(x_i \mid f_\theta(x_1 \dots x_{i - 1}))$.

    Args:
        model: codes `(N, T)` to logits `(N, T, K)`, its alphabet in `characters`.
        sequences: codes `(N, T)`, int64, N and T at least 1.
    Returns:
        bits, float64 `(N,)`.
    Raises:
        ValueError: names the argument.
    Reference: Carlini 2018, arXiv 1802.08232, definition 1.

    >>> model = LanguageModel("|abc")
    >>> _ = nn.init.zeros_(model.last.weight), nn.init.zeros_(model.last.bias)
    >>> log_perplexity(model, torch.tensor([[1, 2, 3]]))
    tensor([6.], dtype=torch.float64)
    """
    check_language_model(model)
    check_codes(sequences, model.characters)
    if sequences.ndim != 2 or 0 in sequences.shape:
        raise ValueError(f"sequences is {describe(sequences)}; accepted: (N, T), both at least 1")
    given = F.pad(sequences, (1, 0))[:, :-1]
    parts = zip(given.split(AT_ONCE), sequences.split(AT_ONCE), strict=True)
    with torch.no_grad(), in_mode(model, training=False):
        nats = [-checked_logits(model, g).double().log_softmax(2).gather(2, x[:, :, None]) for g, x in parts]
    return torch.cat(nats).sum((1, 2)) / math.log(2)


def bits_per_character(model: LanguageModel, text: Text) -> float:
    """How well the model knows the language: the mean cost of a character of a text, the ends of lines included.

    Args:
        model: codes `(N, T)` to logits `(N, T, K)`, its alphabet in `characters`.
        text: such as sentences that it was not trained on.
    Returns:
        bits; 2 to the power of them is the perplexity.
    Raises:
        ValueError: names the argument.
    """
    check_text(text)
    check_language_model(model)
    if text.characters != model.characters:
        raise ValueError(f"text is in {text.characters!r}; accepted: the model's alphabet, {model.characters!r}")
    lines = text.codes.tensor_split(((text.codes == 0).nonzero()[:, 0] + 1)[:-1])
    total = 0.0
    for length in {len(line) for line in lines}:
        total += log_perplexity(model, torch.stack([line for line in lines if len(line) == length])).sum().item()
    return total / len(text.codes)


def memorization(
    model: LanguageModel,
    canary: Canary,
    secret: str,
    *,
    samples: int | None = None,
    generator: torch.Generator | None = None,
) -> Exposure:
    r"""How far a model has memorized a secret: its exposure.

    $\mathrm{exposure}_\theta(s[r]) = \log_2 |R| - \log_2 \mathrm{rank}_\theta(s[r])$ with
    $\mathrm{rank}_\theta(s[r]) = |\{r' \in R : P_\theta(s[r']) \le P_\theta(s[r])\}|$. Where R is too large to be
    counted, $-\log_2 \int_{-\infty}^{P_\theta(s[r])} \rho(x) \, dx$, with $\rho$ the skew-normal density fitted to the
    log-perplexity of candidates drawn from R.

    Args:
        model: codes `(N, T)` to logits `(N, T, K)`, its alphabet in `characters`.
        canary: the format of the secret.
        secret: what was planted in the training text: the blanks, filled.
        samples: how many candidates to draw, at least 100; None counts them all, at most a million.
        generator: draws the candidates; None draws a fresh one.
    Returns:
        the exposure, the rank, and what they rest on. A secret that was never seen has a rank drawn at random, and so
        an exposure of $\log_2 e \approx 1.44$ bits on average; the likeliest candidate has all $\log_2 |R|$.
    Raises:
        ValueError: names the argument.
    Reference: Carlini 2018, arXiv 1802.08232, section 4.2 (rank, exposure) and section 4.3 (its approximation).
    Survey: Private AI, threats; a user.
    Simplified: an estimate is cut at $\log_2 |R|$, beyond which no exposure can be.

    >>> canary = Canary("the code of anna is ", 2)
    >>> text = Text.of(["the code of anna is 48"] * 30)
    >>> model = train_language_model(text, epochs=30, generator=torch.Generator().manual_seed(0), progress=False)
    >>> print(memorization(model, canary, "48"))
    exposure 6.6 of 6.6 bits (rank 1 of 100)
    """
    check_canary(model, canary)
    number = canary.number(secret)
    check_generator(generator, torch.device("cpu"))
    if samples is None:
        P = candidate_perplexities(model, canary)
        rank = int((P[number] >= P).sum())
        return Exposure(secret, math.log2(canary.size / rank), P[number].item(), canary.size, rank)
    check_count("samples", samples, low=100)
    P_secret = log_perplexity(model, encode(canary.prefix + secret, model.characters)[None]).item()
    P = sampled_perplexities(model, canary, samples, fresh_generator(generator, torch.device("cpu"))).numpy()
    rho = skewnorm(*skewnorm.fit(P))
    exposure = min(-log2_below(rho, P_secret), math.log2(canary.size))
    return Exposure(secret, exposure, P_secret, canary.size, p_value=float(kstest(P, rho.cdf).pvalue))


def candidate_perplexities(model: LanguageModel, canary: Canary) -> Tensor:
    """The log-perplexity of the canary with each candidate in it, in the order of `Canary.secret`.

    Candidates that begin alike share what the beginning costs, so that the model reads |R| / 9 beginnings.

    Args:
        model: codes `(N, T)` to logits `(N, T, K)`, its alphabet in `characters`.
        canary: with at most a million candidates.
    Returns:
        bits, float64 `(|R|,)`.
    Raises:
        ValueError: names the argument.
    """
    check_canary(model, canary)
    if canary.size > ENUMERABLE:
        raise ValueError(f"canary has {canary.size:,} candidates; accepted: {ENUMERABLE:,}, or samples for an estimate")
    symbols = encode(canary.symbols, model.characters)
    beginnings = encode(canary.prefix, model.characters)[None]
    bits = log_perplexity(model, beginnings)
    for _ in range(canary.blanks):
        bits = (bits[:, None] + next_bits(model, beginnings)[:, symbols]).flatten()
        filled = symbols.repeat(len(beginnings))[:, None]
        beginnings = torch.cat([beginnings.repeat_interleave(len(symbols), 0), filled], 1)
    return bits


def sampled_perplexities(model: LanguageModel, canary: Canary, samples: int, generator: torch.Generator) -> Tensor:
    """The log-perplexity of the canary with candidates drawn uniformly, float64 `(samples,)`."""
    symbols = encode(canary.symbols, model.characters)
    drawn = symbols[torch.randint(len(symbols), (samples, canary.blanks), generator=generator)]
    prefix = encode(canary.prefix, model.characters).expand(samples, -1)
    return log_perplexity(model, torch.cat([prefix, drawn], 1))


def log2_below(rho: rv_frozen, value: float) -> float:
    r"""$\log_2 \int_{-\infty}^v \rho(x) \, dx$ of a distribution of scipy, far out in its tail too.

    There $\rho$ falls steadily, so that $\int_0^\infty \rho(v - t) / \rho(v) \, dt$ is easy to integrate.

    >>> from scipy.stats import norm
    >>> [round(log2_below(norm(), value), 1) for value in (0.0, -20.0)]
    [-1.0, -294.2]
    """
    chance = float(rho.cdf(value))
    if chance > SETTLED:
        return math.log2(chance)
    top, scale = float(rho.logpdf(value)), float(rho.std())
    area = quad(lambda t: math.exp(rho.logpdf(value - t * scale) - top), 0, math.inf)[0] * scale
    return (top + math.log(area)) / math.log(2)


def extract_secret(model: LanguageModel, canary: Canary, *, limit: int = 100_000) -> Extraction:
    r"""Find the likeliest candidate without trying them all: the shortest path through the tree of their beginnings.

    The edge from a beginning to the next character is $-\log_2 \Pr(x_i \mid f_\theta(x_1 \dots x_{i - 1})) \ge 0$
    long, and a leaf is $P_\theta(s[r])$ away from the root. Dijkstra's algorithm always opens the nearest beginning;
    the first complete one that it meets is nearest of all.

    Args:
        model: codes `(N, T)` to logits `(N, T, K)`, its alphabet in `characters`; only its probabilities are used.
        canary: the format of the secret.
        limit: give up after so many beginnings, at least 1.
    Returns:
        the secret, its log-perplexity, and the number of beginnings that were opened.
    Raises:
        ValueError: names the argument.
    Reference: Carlini 2018, arXiv 1802.08232, section 8.1; Dijkstra 1959, "A note on two problems in connexion with
        graphs".
    Survey: Private AI, threats; a user.
    Simplified: one beginning at a time, where the paper opens many together to fill its GPU.

    >>> canary = Canary("the code of anna is ", 6)
    >>> text = Text.of(["the code of anna is 482713"] * 100)
    >>> settings = {"batch_size": 4, "epochs": 3, "generator": torch.Generator().manual_seed(0), "progress": False}
    >>> model = train_language_model(text, **settings)
    >>> found = extract_secret(model, canary)
    >>> found.secret, found.opened
    ('482713', 6)
    """
    check_canary(model, canary)
    check_count("limit", limit)
    prefix, symbols = encode(canary.prefix, model.characters), encode(canary.symbols, model.characters)
    queue = [(log_perplexity(model, prefix[None]).item(), "")]
    for opened in range(limit + 1):
        distance, beginning = heapq.heappop(queue)
        if len(beginning) == canary.blanks:
            return Extraction(beginning, distance, opened)
        read = torch.cat([prefix, encode(beginning, model.characters)])
        for symbol, bits in zip(canary.symbols, next_bits(model, read[None])[0, symbols].tolist(), strict=True):
            heapq.heappush(queue, (distance + bits, beginning + symbol))
    return Extraction(None, math.inf, limit)


def checked_logits(model: LanguageModel, codes: Tensor) -> Tensor:
    """`model(codes)`, if it has a finite logit for each character after each code."""
    logits = model(codes)
    shape = (*codes.shape, len(model.characters))
    if not isinstance(logits, Tensor) or logits.shape != shape or not logits.isfinite().all():
        raise ValueError(f"model returns {describe(logits)}; accepted: finite logits of shape {shape}")
    return logits


def check_text(text: Text) -> None:
    """Raise `ValueError` unless `text` is a `Text`."""
    if not isinstance(text, Text):
        raise ValueError(f"text is {describe(text)}; accepted: a Text, such as Text.of(lines)")


def check_language_model(model: LanguageModel) -> None:
    """Raise `ValueError` unless `model` is a network with an alphabet."""
    if not isinstance(model, nn.Module) or not hasattr(model, "characters"):
        raise ValueError(f"model is {describe(model)}; accepted: a LanguageModel, with its alphabet in characters")
    check_characters(model.characters)


def check_canary(model: LanguageModel, canary: Canary) -> None:
    """Raise `ValueError` unless the canary can be written in the model's alphabet."""
    check_language_model(model)
    if not isinstance(canary, Canary):
        raise ValueError(f"canary is {describe(canary)}; accepted: a Canary")
    unknown = sorted(set(canary.prefix + canary.symbols) - set(model.characters))
    if unknown:
        raise ValueError(f"canary has the character {unknown[0]!r}; accepted: those of {model.characters!r}")
