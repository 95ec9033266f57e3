"""The sides explorer: the client reads what the network says in the clear, the server has what looks like chance."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from spai_lab.crypto.ckks import encode
from spai_lab.crypto.ckks_messages import ciphertext_from_bytes, ciphertext_to_bytes
from spai_lab.crypto.encrypted_mlp import decrypt_logits, encrypt_image, encrypted_logits
from spai_lab.style import to_png
from spai_lab.widgets.sides_explorer import (
    CELLS,
    ENCRYPTIONS,
    STAGES,
    cell_counts,
    chi_square,
    correlation,
    describe,
    images,
    journey,
    parties,
    render,
    sides_explorer,
    sight,
    unusual,
    usual_chi_square,
    usual_correlation,
    verdict,
    without_key,
)

FALSE_ALARM = 1e-6
every = pytest.mark.parametrize("stage", STAGES)


@pytest.fixture(scope="module")
def both():
    return parties()


@pytest.fixture(scope="module")
def image():
    return images()[2]


@pytest.fixture(scope="module")
def sent(both, image):
    return encrypt_image(both.public, both.network.layout, both.data.x_test[image])


def parts(fig):
    return {artist.get_gid(): artist for artist in fig.findobj() if artist.get_gid()}


def even(counts):
    """Whether scipy finds such counts likelier than `FALSE_ALARM`, if all cells are alike."""
    return stats.chisquare(counts).pvalue > FALSE_ALARM


# --- the client's side ------------------------------------------------------------------------------------------------


@every
def test_the_client_reads_what_torch_computes_in_the_clear(both, image, stage):
    """Layer by layer, by torch's own operations. A bound fails with 1e-9 for each of some fifty operations."""
    W1, b1, W2, b2 = (getattr(both.weights, name) for name in ("W1", "b1", "W2", "b2"))
    x = both.data.x_test[image].double().flatten()
    first = torch.nn.functional.linear(x, W1, b1)
    expected = {"sent": x, "first": first, "square": first * first}
    expected["logits"] = torch.nn.functional.linear(first * first, W2, b2)
    for encryption in (1, 2):
        seen = journey(image, encryption)[stage]
        wrong = np.abs(seen.values - expected[stage].numpy()).max()
        assert 0 < wrong <= seen.bound and seen.error == pytest.approx(wrong, rel=1e-6)
        assert seen.bound < 0.2


def test_the_network_reads_its_images_well(both):
    right = [journey(image, 1)["logits"].values.argmax() == both.data.y_test[image] for image in images()]
    assert sum(right) >= len(images()) - 2 and len(images()) == 10


def test_keys_are_secure_and_the_logits_are_those_of_the_client_alone(both, sent):
    assert both.secret.context.secure
    z = encrypted_logits(both.network, sent, both.relinearization, both.rotations)
    assert decrypt_logits(both.secret, both.network.layout, z)[0].shape == (10,)


# --- the server's side ------------------------------------------------------------------------------------------------


@every
def test_residues_are_even_at_every_stage_and_unlike_another_encryption(image, stage):
    """scipy's chi-square, 20 in all: a false alarm once in 50,000 runs. A correlation of 8,192 pairs has a
    standard deviation of 1 / sqrt(8,192): five of them are left with a probability of 6e-7."""
    seen = [journey(image, encryption)[stage] for encryption in range(1, 6)]
    for one in seen:
        assert even(one.counts)
        assert one.counts.sum() == 2 * (one.level + 1) * 8192
    for other in seen[1:]:
        assert abs(correlation(seen[0], other)) < 5 / np.sqrt(8192)
        assert seen[0].first != other.first


def test_an_image_that_is_not_encrypted_is_caught(both, image):
    pixels = both.data.x_test[image].double().flatten().numpy()
    context = both.secret.context
    counts = cell_counts(encode(context, np.tile(pixels, 64), limit=1.0).values, context.primes)
    assert not even(counts) and without_key(image) == pytest.approx(stats.chisquare(counts).statistic)


def test_residues_of_one_part_in_twenty_are_caught(sent):
    """A planted fault: 5 % of the residues are 0, as after a forgotten mask."""
    parts = sent.parts.copy()
    parts[..., ::20] = 0
    assert even(cell_counts(sent.parts, sent.context.primes)) and not even(cell_counts(parts, sent.context.primes))


def test_cells_are_equal_parts_of_each_modulus():
    primes = (97, 193)
    residues = np.stack([np.arange(97), np.arange(97) + 96])
    expected = np.histogram(residues[0] / 97, CELLS, (0, 1))[0] + np.histogram(residues[1] / 193, CELLS, (0, 1))[0]
    assert cell_counts(residues, primes).tolist() == expected.tolist()


def test_the_statistic_and_its_usual_range_are_those_of_counted_draws():
    """scipy's statistic; of 2,000 even draws 95 % lie within, but for five standard errors of .5 %."""
    rng = np.random.default_rng(0)
    counts = rng.multinomial(32_768, [1 / CELLS] * CELLS, size=2000)
    found = np.array([chi_square(row) for row in counts])
    assert found == pytest.approx(stats.chisquare(counts, axis=1).statistic)
    low, high = usual_chi_square()
    assert ((low <= found) & (found <= high)).mean() == pytest.approx(0.95, abs=0.025)
    pairs = rng.random((2000, 2, 8192), dtype=np.float32)
    apart = np.array([np.corrcoef(pair)[0, 1] for pair in pairs])
    assert (np.abs(apart) < usual_correlation()).mean() == pytest.approx(0.95, abs=0.025)


def test_bytes_and_size_are_those_of_the_message(both, sent):
    seen = sight(both.secret, sent, np.arange(64), np.zeros(64))
    data = ciphertext_to_bytes(sent)
    back = ciphertext_from_bytes(sent.context, data, key=sent.key)
    assert len(data) == seen.size and np.frombuffer(seen.first, "<u4").tolist() == back.parts[0, 0, :3].tolist()
    assert (seen.level, seen.scale) == (back.level, back.scale)


# --- the picture and its words ----------------------------------------------------------------------------------------


@every
def test_the_picture_shows_the_encryption_that_was_asked_for(image, stage):
    for encryption in (1, 3):
        seen, named = journey(image, encryption)[stage], parts(render(image, stage, encryption))
        heights = named["counts"].get_xy()[1:-2:2, 1]
        assert heights * seen.counts.mean() == pytest.approx(seen.counts)
        assert f"χ² = {seen.chi2:.0f} " in named["chi"].get_text()
        shown = bytes.fromhex(named["bytes"].get_text().removesuffix(" …"))
        assert shown == seen.first
        low, high = named["band"].get_y(), named["band"].get_y() + named["band"].get_height()
        inside = ((low < heights) & (heights < high)).mean()
        assert inside > 0.7  # 95 % of 64 expected: fewer than 45 have a probability below 1e-9
        gray = named["residues"].pixels[..., 0].astype(int)
        assert gray[1::3, 1::3] == pytest.approx(255 * seen.residues, abs=2)  # cut to 256 levels, then to bytes


def test_words_follow_the_numbers(both, image):
    for stage, (where, what) in STAGES.items():
        for encryption in (1, 2, ENCRYPTIONS):
            first, other = (journey(image, which)[stage] for which in (1, encryption))
            said, told = verdict(image, stage, encryption), describe(image, stage, encryption)
            assert f"a {both.data.y_test[image]}, {where}" in said and what in said and what in told
            assert f"chi-square of {first.chi2:.1f}" in said and f"{other.chi2:.0f};" in told
            assert ("not encrypted" in said) == (stage == "sent")
            assert ("same encryption" in said) == (encryption == 1)
            assert ("The largest says" in said) == (stage == "logits")
            assert first.first.hex() in told.replace(" ", "") and "assumption" in said
            for words in (said, told):
                assert words.endswith(".") and "nan" not in words


def test_what_lies_outside_the_usual_range_is_said(image):
    seen = journey(image, 1)["sent"]
    outside = (seen.chi2 < usual_chi_square()[0]) or (seen.chi2 > usual_chi_square()[1])
    assert ("one in twenty" in unusual(seen)) == outside
    assert "one in twenty" in unusual(seen, replace(seen, counts=np.arange(CELLS)))


def test_controls_redraw():
    explorer = sides_explorer()
    for name, value in (("stage", "first"), ("encryption", 4), ("stage", "logits"), ("image", images()[7])):
        before = explorer.png, explorer.alt, explorer.caption
        explorer.controls[name].value = value
        now = explorer.png, explorer.alt, explorer.caption
        assert all(new != old for new, old in zip(now, before, strict=True))
    assert explorer.caption == verdict(images()[7], "logits", 4)
    assert explorer.png == to_png(render(images()[7], "logits", 4))
    assert 'role="alert"' not in explorer.children[2].value


def test_bad_arguments_are_refused(refuses, image):
    good = {"image": image, "stage": "sent", "encryption": 2}
    for function in (render, verdict, describe):
        refuses(function, good | {"image": -1}, "image is -1", f"{image}")
        refuses(function, good | {"stage": "lost"}, "stage is 'lost'", "logits")
        refuses(function, good | {"encryption": 0}, "encryption is 0", "at least 1")
        refuses(function, good | {"encryption": 7}, "encryption is 7", "1 to 6")
