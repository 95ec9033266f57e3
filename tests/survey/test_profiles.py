"""The profiles: every method of the taxonomy once, with a budget, and a clear word where it cannot be measured yet."""

import importlib.util

import pytest

from spai_lab.metrics import Rate
from spai_lab.survey import profiles
from spai_lab.survey.headline import Headline
from spai_lab.survey.profiles import MODULES, PROFILES, SurveyRow, headlines_of, module_of, survey_jobs, table_of
from spai_lab.survey.taxonomy import PARTS, load_taxonomy, rows_of

HEADLINE = Headline.of_rate("success", Rate(3, 4), setup="fake", budget="nothing", better="higher")


@pytest.mark.parametrize("profile", PROFILES)
def test_every_method_is_a_row_of_each_profile(profile):
    methods = [row.id for row in load_taxonomy() if row.part != "tables and figures"]
    jobs = survey_jobs(profile)
    assert [job.row for job in jobs] == methods
    assert all(job.key == {"row": job.row, "profile": profile, "data": PROFILES[profile].data} for job in jobs)


@pytest.mark.parametrize("profile", PROFILES)
def test_every_part_has_a_stated_budget(profile):
    assert MODULES.keys() == PARTS.keys() - {"tables and figures"}
    assert PROFILES[profile].budgets.keys() == MODULES.keys() and all(PROFILES[profile].budgets.values())


@pytest.mark.parametrize("part", MODULES)
@pytest.mark.parametrize("profile", PROFILES)
def test_a_part_that_is_there_has_each_of_its_rows_and_no_other(profile, part):
    if importlib.util.find_spec(module_of(profile, part)) is None:
        pytest.skip("not there yet")
    assert table_of(profile, part).keys() == {row.id for row in rows_of(load_taxonomy(), part)}


def test_quick_hands_on_the_seed_and_full_tells_all_that_was_measured(monkeypatch):
    seeds = []
    monkeypatch.setattr(
        profiles,
        "table_of",
        lambda profile, part: (
            {"pgd": lambda seed: seeds.append(seed) or HEADLINE}
            if profile == "quick"
            else {"pgd": lambda: [HEADLINE, HEADLINE]}
        ),
    )
    quick, full = (SurveyRow("pgd", profile, "digits").run(7) for profile in ("quick", "full"))
    assert seeds == [7]
    assert quick["budget"] == PROFILES["quick"].budgets["evasion"] and "90 s" in quick["budget"]
    assert headlines_of(quick) == [HEADLINE] and headlines_of(full) == [HEADLINE, HEADLINE]


def test_a_part_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setitem(MODULES, "evasion", "no_such_part")
    with pytest.raises(
        RuntimeError, match=r"'evasion' cannot be measured yet: there is no module .*quick_no_such_part"
    ):
        SurveyRow("pgd", "quick", "digits").run(0)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({}, "quick_evasion has no entry 'pgd' in QUICK"),
        ({"pgd": lambda seed: 0.5}, "quick_evasion tells 0.5 of 'pgd'; accepted: a Headline"),
    ],
)
def test_what_a_part_lacks_or_tells_wrongly_is_named(monkeypatch, table, words):
    monkeypatch.setattr(profiles, "table_of", lambda profile, part: table)
    with pytest.raises(RuntimeError, match=words):
        SurveyRow("pgd", "quick", "digits").run(0)


def test_full_may_not_tell_nothing(monkeypatch):
    monkeypatch.setattr(profiles, "table_of", lambda profile, part: {"pgd": list})
    with pytest.raises(RuntimeError, match="full_evasion tells nothing of 'pgd'"):
        SurveyRow("pgd", "full", "mnist, faces").run(0)
