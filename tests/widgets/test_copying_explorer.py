"""The copying explorer: its points and words are what was measured."""

import pytest

from spai_lab.metrics import Rate
from spai_lab.survey.extraction_jobs import BUDGETS, LEVELS
from spai_lab.survey.measure import load_measurement, row_of
from spai_lab.widgets.copying_explorer import STRATEGIES, copying_explorer, describe, render, verdict

SETTINGS = [
    (dataset, level, strategy, budget)
    for dataset in ("digits", "mnist")
    for level in LEVELS
    for strategy in STRATEGIES
    for budget in (BUDGETS[dataset][0], BUDGETS[dataset][-1])
]


@pytest.mark.parametrize(("dataset", "level", "strategy", "budget"), SETTINGS)
def test_the_point_and_the_words_are_the_measured_rate(dataset, level, strategy, budget):
    row = row_of(load_measurement(f"extraction_{dataset}"), kind="learned", strategy=strategy, level=level)
    rate = Rate(*row["agree"][str(budget)])
    fig = render(dataset, level, strategy, budget)
    parts = {artist.get_gid(): artist for artist in fig.findobj() if artist.get_gid()}
    assert parts["present"].get_xydata().tolist() == [[budget, rate.value]]
    assert f"{budget:,} queries" in parts["said"].get_text()
    assert str(rate) in verdict(dataset, level, strategy, budget)
    assert str(Rate(*row["fooled"]["PGD"])) in verdict(dataset, level, strategy, budget)
    assert describe(dataset, level, strategy, budget).endswith(".")


def test_another_data_set_brings_its_budgets_and_keeps_the_place():
    explorer = copying_explorer("digits")
    explorer.controls["budget"].index = 2
    explorer.controls["dataset"].value = "mnist"
    assert [value for _, value in explorer.controls["budget"].options] == list(BUDGETS["mnist"])
    assert explorer.controls["budget"].value == BUDGETS["mnist"][2]
    assert "On mnist" in explorer.caption


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dataset": "faces"}, "dataset is 'faces'"),
        ({"level": "logits"}, "level is 'logits'"),
        ({"strategy": "all"}, "strategy is 'all'"),
        ({"budget": 3}, "budget is 3; accepted: 25, 50"),
    ],
)
def test_bad_arguments_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        render(**{"dataset": "digits", "level": "labels", "strategy": "natural", "budget": 25} | change)
