"""Exposure against closed forms on models that we can count through, and on a trained one against what was planted."""

import itertools
import math
import sys

import pytest
import torch
from scipy.stats import chi2, gamma, norm, skewnorm
from torch import nn

from spai_lab.attacks.privacy.memorization import (
    Canary,
    LanguageModel,
    bits_per_character,
    candidate_perplexities,
    extract_secret,
    log2_below,
    log_perplexity,
    memorization,
    next_bits,
    padded,
    train_language_model,
)
from spai_lab.data.sentences import ALPHABET, NAMES, TEMPLATES, WORDS, Text, decode, encode, planted, sentences

PLANTED = dict(zip(NAMES, (0, 0, 0, 0, 0, 0, 1, 2, 4, 8, 16, 32), strict=True))
FALSE_ALARM = 1e-6


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Chain(nn.Module):
    """A Markov chain: the next character depends on the last one alone, by a table of logits `(K, K)`."""

    def __init__(self, table: torch.Tensor, characters: str = "|ab01") -> None:
        super().__init__()
        self.characters, self.table = characters, nn.Parameter(table, requires_grad=False)

    def forward(self, codes: torch.Tensor) -> torch.Tensor:
        return self.table[codes]


def chain(seed: int = 0, scale: float = 2.0) -> Chain:
    return Chain(scale * torch.randn(5, 5, generator=seeded(seed)))


CANARY = Canary("ab", 4, "01")


# --- text -------------------------------------------------------------------------------------------------------------


def test_text_and_its_lines_are_the_same():
    lines = sentences(50, generator=seeded())
    text = Text.of(lines)
    assert text.lines == lines and decode(text.codes) == "\n".join(lines) + "\n"
    assert torch.equal(Text.of(text.lines).codes, text.codes)


def test_the_grammar_uses_all_its_words_in_proportion():
    """Pearson's test of the templates' first words that tell them apart, and every word of every list occurs."""
    lines = sentences(4000, generator=seeded())
    words = [word for options in WORDS.values() for word in options]
    assert all(any(word in line for line in lines) for word in words)
    starts = {"bus ": 1, "room ": 1}
    for start, templates in starts.items():
        share = templates / len(TEMPLATES)
        count = sum(line.startswith(start) for line in lines)
        assert abs(count - 4000 * share) < norm.isf(FALSE_ALARM / 2) * math.sqrt(4000 * share * (1 - share))


def test_sentences_follow_their_seed_and_leave_the_global_state():
    state = torch.get_rng_state()
    assert (
        sentences(20, generator=seeded(1)) == sentences(20, generator=seeded(1)) != sentences(20, generator=seeded(2))
    )
    assert torch.equal(state, torch.get_rng_state())


def test_planting_adds_exactly_what_was_asked_for_and_keeps_the_order():
    lines = sentences(30, generator=seeded())
    mixed = planted(lines, {"secret 1": 0, "secret 2": 3}, generator=seeded())
    assert mixed.count("secret 1") == 0 and mixed.count("secret 2") == 3
    assert tuple(line for line in mixed if line != "secret 2") == lines


def test_places_are_drawn_uniformly():
    """One secret in two lines has three places: Pearson's statistic of 3,000 draws."""
    generator = seeded(3)
    places = [planted(["a", "b"], {"c": 1}, generator=generator).index("c") for _ in range(3000)]
    assert sum((places.count(place) - 1000) ** 2 / 1000 for place in range(3)) < chi2.isf(FALSE_ALARM, 2)


# --- closed forms -----------------------------------------------------------------------------------------------------


def test_log_perplexity_is_the_sum_over_the_chain():
    model = chain()
    chances = model.table.double().softmax(1)
    for sequence in ([1, 2, 3, 4], [4, 4, 4], [2]):
        expected = -sum(math.log2(chances[a, b]) for a, b in itertools.pairwise([0, *sequence]))
        assert log_perplexity(model, torch.tensor([sequence])).item() == pytest.approx(expected, abs=1e-5)


def test_all_sequences_of_a_length_have_probability_one():
    model = LanguageModel("|ab", hidden=5, generator=seeded())
    sequences = torch.tensor(list(itertools.product(range(3), repeat=5)))
    assert (2 ** -log_perplexity(model, sequences)).sum().item() == pytest.approx(1, abs=1e-5)


def test_batches_do_not_matter(monkeypatch):
    model = LanguageModel("|ab", hidden=5, generator=seeded())
    sequences = torch.tensor(list(itertools.product(range(3), repeat=5)))
    together = log_perplexity(model, sequences), next_bits(model, sequences)
    monkeypatch.setattr(sys.modules[log_perplexity.__module__], "AT_ONCE", 10)
    parts = log_perplexity(model, sequences), next_bits(model, sequences)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(together, parts, strict=True))


def test_candidates_cost_what_their_sequences_cost():
    model = LanguageModel(ALPHABET, hidden=8, generator=seeded())
    canary = Canary("the code of anna is ", 2)
    sequences = torch.stack([encode(canary.prefix + canary.secret(number)) for number in range(canary.size)])
    assert torch.allclose(candidate_perplexities(model, canary), log_perplexity(model, sequences), atol=1e-4)


def test_exposure_is_counted():
    """The chances of a chain with independent digits: 0 is likelier than 1, so that the rank counts the ones."""
    table = torch.zeros(5, 5)
    table[:, 3] = 1.0
    model = Chain(table)
    assert candidate_perplexities(model, CANARY).argmin() == 0
    for ones, secret in enumerate(("0000", "0001", "0011", "0111", "1111")):
        rank = sum(math.comb(4, k) for k in range(ones + 1))
        found = memorization(model, CANARY, secret)
        assert (found.rank, found.exposure) == (rank, pytest.approx(4 - math.log2(rank)))


def test_a_model_that_does_not_care_exposes_nothing():
    assert memorization(Chain(torch.zeros(5, 5)), CANARY, "0101").exposure == 0


def test_a_secret_drawn_at_random_has_an_exposure_of_log2_e():
    """Exposure is exponential with mean log2 e up to 1 / |R|, so that the sum of n is gamma distributed."""
    model, canary, n = LanguageModel(ALPHABET, hidden=8, generator=seeded()), Canary("room ", 3), 300
    P = candidate_perplexities(model, canary)
    drawn = torch.randint(canary.size, (n,), generator=seeded(7))
    ranks = [(P[number] >= P).sum().item() for number in drawn]
    assert memorization(model, canary, canary.secret(int(drawn[0]))).rank == ranks[0]
    mean = sum(math.log2(canary.size / rank) for rank in ranks) / n
    low, high = gamma(n, scale=math.log2(math.e) / n).ppf([FALSE_ALARM / 2, 1 - FALSE_ALARM / 2])
    assert low < mean < high


@pytest.mark.parametrize("seed", range(5))
def test_search_finds_the_likeliest_candidate(seed):
    for model, canary in (
        (chain(seed), Canary("ab", 8, "01")),
        (LanguageModel(ALPHABET, hidden=8, generator=seeded(seed)), Canary("the code is ", 2)),
    ):
        P = candidate_perplexities(model, canary)
        found = extract_secret(model, canary)
        assert found.log_perplexity == pytest.approx(P.min().item(), abs=1e-4)
        assert P[canary.number(found.secret)].item() == pytest.approx(P.min().item(), abs=1e-4)
        assert found.opened <= (canary.size - 1) / (len(canary.symbols) - 1)


def test_search_opens_only_what_is_nearer_than_the_secret():
    """Dijkstra opens exactly the beginnings that cost less than the best candidate."""
    model, canary = chain(1), Canary("ab", 6, "01")
    best = candidate_perplexities(model, canary).min()
    beginnings = [canary.prefix + "".join(bits) for k in range(6) for bits in itertools.product("01", repeat=k)]
    nearer = sum(log_perplexity(model, encode(b, model.characters)[None]).item() < best for b in beginnings)
    assert extract_secret(model, canary).opened == nearer < len(beginnings)


def test_search_gives_up_at_its_limit():
    model, canary = chain(1), Canary("ab", 6, "01")
    needed = extract_secret(model, canary).opened
    assert extract_secret(model, canary, limit=needed).secret is not None
    assert extract_secret(model, canary, limit=needed - 1).secret is None


@pytest.mark.parametrize("value", [-30.0, -7.0, -3.0, 0.0, 2.0])
def test_tails_of_a_distribution(value):
    assert log2_below(norm(), value) == pytest.approx(norm.logcdf(value) / math.log(2), rel=1e-6)
    assert log2_below(norm(5, 3), 5 + 3 * value) == pytest.approx(norm.logcdf(value) / math.log(2), rel=1e-6)


def test_a_skewed_tail_agrees_with_symmetry():
    """For the skew-normal with shape 1, F(x) = Phi(x)^2."""
    for value in (-20.0, -4.0, 0.5):
        assert log2_below(skewnorm(1), value) == pytest.approx(2 * norm.logcdf(value) / math.log(2), rel=1e-5)


def test_what_is_learned_line_by_line():
    given, wanted = padded(Text.of(["ab", "b", ""], "|ab"))
    assert given.tolist() == [[0, 1, 2], [0, 2, 0], [0, 0, 0]]
    assert wanted.tolist() == [[1, 2, 0], [2, 0, -100], [0, -100, -100]]


def test_bits_per_character_is_the_mean_over_the_chain():
    model, text = chain(), Text.of(["ab", "b01", "1"], "|ab01")
    chances = model.table.double().softmax(1)
    codes = [0, *text.codes.tolist()]
    expected = -sum(math.log2(chances[a, b]) for a, b in itertools.pairwise(codes)) / len(text.codes)
    assert bits_per_character(model, text) == pytest.approx(expected, abs=1e-5)


# --- a trained model --------------------------------------------------------------------------------------------------


def secrets_of(seed: int) -> dict[str, tuple[Canary, str]]:
    generator = seeded(seed)
    canaries = {name: Canary(f"the code of {name} is ", 4) for name in NAMES}
    return {name: (c, c.secret(int(torch.randint(c.size, (), generator=generator)))) for name, c in canaries.items()}


@pytest.fixture(scope="module")
def secrets():
    return secrets_of(100)


@pytest.fixture(scope="module")
def model(secrets):
    lines = {canary.prefix + secret: PLANTED[name] for name, (canary, secret) in secrets.items()}
    text = Text.of(planted(sentences(2000, generator=seeded(1)), lines, generator=seeded(2)))
    return train_language_model(text, generator=seeded(3), progress=False)


@pytest.fixture(scope="module")
def exposed(model, secrets):
    return {name: memorization(model, *secrets[name]) for name in NAMES}


def test_the_model_has_learned_the_language(model):
    """A character in the grammar costs less than a bit; characters that are drawn uniformly cost 5.2."""
    held_out = Text.of(sentences(300, generator=seeded(9)))
    assert bits_per_character(model, held_out) < 1.0


def test_what_was_planted_often_is_exposed_and_what_was_not_is_not(exposed):
    never = [exposed[name].exposure for name, times in PLANTED.items() if times == 0]
    assert sum(never) < gamma(len(never), scale=math.log2(math.e)).isf(FALSE_ALARM)
    assert exposed["leo"].rank == 1 and exposed["leo"].exposure == pytest.approx(math.log2(10**4))
    assert exposed["karen"].exposure > 8 > sum(never) / len(never) + 2


def test_the_search_takes_the_secret_out(model, secrets, exposed):
    canary, secret = secrets["leo"]
    found = extract_secret(model, canary)
    assert found.secret == secret and found.opened < 200
    assert found.log_perplexity == pytest.approx(exposed["leo"].log_perplexity, abs=1e-4)
    for name in ("anna", "henry", "jonas"):
        P = candidate_perplexities(model, secrets[name][0])
        assert P[secrets[name][0].number(extract_secret(model, secrets[name][0]).secret)] < P.min() + 1e-4


def test_the_estimate_agrees_with_the_count(model, secrets):
    """Over all ranks of one format: the fit need not be good, but must be right within a bit where samples lie."""
    canary = secrets["anna"][0]
    order = candidate_perplexities(model, canary).argsort()
    for rank in (1000, 2500, 5000, 9000):
        secret = canary.secret(int(order[rank - 1]))
        counted, estimated = (memorization(model, canary, secret, samples=n, generator=seeded()) for n in (None, 1000))
        assert counted.rank == rank and estimated.rank is None and 0 <= estimated.p_value <= 1
        assert estimated.exposure == pytest.approx(counted.exposure, abs=0.5)


def test_the_estimate_goes_where_counting_cannot(model, secrets):
    canary = Canary("the code of leo is ", 12)
    found = memorization(model, canary, "4" * 12, samples=200, generator=seeded())
    assert found.size == 10**12 and 0 <= found.exposure <= math.log2(10**12)


def test_nothing_else_changes(model, secrets):
    state, mode = torch.get_rng_state(), model.training
    weights = [parameter.clone() for parameter in model.parameters()]
    memorization(model, *secrets["anna"], samples=100)
    extract_secret(model, secrets["anna"][0], limit=5)
    text = Text.of(sentences(3, generator=seeded()))
    first, second = (train_language_model(text, epochs=1, generator=seeded(), progress=False) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), weights, strict=True))
    assert torch.equal(state, torch.get_rng_state()) and model.training == mode


@pytest.mark.full
@pytest.mark.parametrize("seed", range(3))
def test_exposure_grows_with_the_number_of_insertions(seed):
    secrets = secrets_of(200 + seed)
    lines = {canary.prefix + secret: PLANTED[name] for name, (canary, secret) in secrets.items()}
    text = Text.of(planted(sentences(2000, generator=seeded(seed)), lines, generator=seeded(seed)))
    model = train_language_model(text, generator=seeded(seed), progress=False)
    exposure = [memorization(model, *secrets[name]).exposure for name in NAMES]
    never, often = exposure[:6], exposure[9:]
    assert sum(never) < gamma(len(never), scale=math.log2(math.e)).isf(FALSE_ALARM)
    assert sum(often) / 3 > 7 and often[-1] == pytest.approx(math.log2(10**4))


# --- bad input --------------------------------------------------------------------------------------------------------

CHAIN = chain()
SMALL = Text.of(["ab"], "|ab")
REFUSED = {
    "no string": (encode, {"words": 3}, "words is 3"),
    "unknown character": (encode, {"words": "A"}, "words has the character 'A'"),
    "codes out of the alphabet": (decode, {"codes": torch.tensor([99])}, "codes has values from 99"),
    "codes of floats": (decode, {"codes": torch.zeros(2)}, "codes is a float32"),
    "codes in two dimensions": (decode, {"codes": torch.zeros(2, 2, dtype=torch.int64)}, "codes is"),
    "text without an end": (Text, {"characters": "|a", "codes": torch.tensor([1])}, "codes is"),
    "alphabet with a twin": (Text, {"characters": "|aa", "codes": torch.tensor([0])}, "characters is"),
    "lines in one string": (Text.of, {"lines": "abc"}, "lines is 'abc'"),
    "line with an end": (Text.of, {"lines": ["a\nb"]}, "lines has"),
    "no sentences": (sentences, {"count": 0}, "count is 0"),
    "planted less than never": (planted, {"lines": ["a"], "secrets": {"b": -1}}, "secrets is -1"),
    "planted without counts": (planted, {"lines": ["a"], "secrets": ["b"]}, "secrets is"),
    "no prefix": (Canary, {"prefix": "", "blanks": 4}, "prefix is ''"),
    "no blanks": (Canary, {"prefix": "a", "blanks": 0}, "blanks is 0"),
    "one symbol": (Canary, {"prefix": "a", "blanks": 1, "symbols": "1"}, "symbols is '1'"),
    "number of no candidate": (CANARY.secret, {"number": 16}, "number is 16"),
    "no text": (train_language_model, {"text": "abc"}, "text is 'abc'"),
    "no epochs": (train_language_model, {"text": SMALL, "epochs": 0}, "epochs is 0"),
    "no rate": (train_language_model, {"text": SMALL, "learning_rate": 0}, "learning_rate is 0"),
    "no state": (train_language_model, {"text": SMALL, "hidden": 0}, "hidden is 0"),
    "another alphabet": (bits_per_character, {"model": CHAIN, "text": SMALL}, "text is in '|ab'"),
    "no alphabet": (log_perplexity, {"model": nn.Flatten(), "sequences": torch.zeros(1, 1)}, "model is Flatten"),
    "one sequence": (log_perplexity, {"model": CHAIN, "sequences": torch.tensor([1])}, "sequences is"),
    "wrong logits": (
        log_perplexity,
        {"model": Chain(torch.zeros(5, 4)), "sequences": torch.tensor([[1]])},
        "model returns a float32 tensor of shape (1, 1, 4)",
    ),
    "secret of another length": (memorization, {"model": CHAIN, "canary": CANARY, "secret": "01"}, "secret is '01'"),
    "secret of other symbols": (memorization, {"model": CHAIN, "canary": CANARY, "secret": "0123"}, "secret is"),
    "few samples": (memorization, {"model": CHAIN, "canary": CANARY, "secret": "0101", "samples": 9}, "samples is 9"),
    "no canary": (memorization, {"model": CHAIN, "canary": "ab####", "secret": "0101"}, "canary is 'ab####'"),
    "canary in other letters": (extract_secret, {"model": CHAIN, "canary": Canary("x", 2, "01")}, "character 'x'"),
    "too many to count": (candidate_perplexities, {"model": CHAIN, "canary": Canary("a", 20, "01")}, "1,048,576"),
    "no limit": (extract_secret, {"model": CHAIN, "canary": CANARY, "limit": 0}, "limit is 0"),
}


@pytest.mark.parametrize(("function", "arguments", "words"), REFUSED.values(), ids=REFUSED)
def test_refuses(refuses, function, arguments, words):
    refuses(function, arguments, words)
