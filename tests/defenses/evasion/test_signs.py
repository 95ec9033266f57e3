"""The tell-tale signs: there where a gradient is hidden, and not where there is none to hide."""

import pytest
import torch
from torch import nn

from spai_lab.defenses.evasion.signs import masking_signs
from spai_lab.defenses.evasion.transformation import input_transformation, reduce_depth
from spai_lab.threat import fooled
from spai_lab.training.weights import reference


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def scene(digits):
    model = reference("lenet", "digits")
    x, y = digits.sample(60)
    right = ~fooled(model, x, y)
    return model, x[right][:32], y[right][:32]


def test_an_undefended_network_shows_none(scene):
    model, x, y = scene
    signs = masking_signs(model, x, y, eps=0.2, queries=100, generator=seeded())
    assert signs.found == ()
    assert signs.zero.hits == 0 and signs.unbounded.hits == 0


def test_rounded_pixels_show_them_all(scene):
    model, x, y = scene
    signs = masking_signs(input_transformation(model, reduce_depth), x, y, eps=0.2, queries=300, generator=seeded())
    assert len(signs.found) == 4
    assert signs.zero.hits == len(x), "rounding has a slope of zero everywhere"
    assert signs.more_steps.hits == len(x) > signs.black_box.hits


def test_a_saturated_softmax_shows_zeros_and_yields_to_square(scene):
    """Logits a hundred times as large: the same answers, no slope of the cross-entropy in float32."""
    model, x, y = scene

    class Saturated(nn.Module):
        def forward(self, x):
            return 100 * model(x)

    plain, saturated = (masking_signs(m, x, y, eps=0.2, queries=100, generator=seeded()) for m in (model, Saturated()))
    assert saturated.zero.value > 0.5
    assert "zero gradients" in saturated.found
    assert saturated.black_box.hits == plain.black_box.hits, "Square compares margins, which only grew"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"eps": 2.0}, ["eps is 2"]),
        ({"queries": 0}, ["queries is 0"]),
        ({"y": torch.tensor([0])}, ["y"]),
        ({"x": torch.zeros(0, 1, 2, 2), "y": torch.zeros(0, dtype=torch.int64)}, ["x", "at least one"]),
    ],
    ids=["eps", "queries", "y", "empty"],
)
def test_bad_input_is_named(refuses, change, words):
    good = {"model": nn.Flatten(), "x": torch.rand(2, 1, 2, 2), "y": torch.tensor([0, 1]), "eps": 0.1}
    refuses(masking_signs, good | change, *words)
