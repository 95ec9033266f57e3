"""The measured tables against counts by hand, and against the taxonomy's file."""

import math
import tomllib

import pytest

from spai_lab.survey.full_crypto import FULL
from spai_lab.survey.measured_private import COSTS, bytes_of, seconds_of, table_private_ai
from spai_lab.survey.measured_rows import Line, data_of, lines_of, source_of
from spai_lab.survey.measured_tables import table_attacks, table_defenses
from spai_lab.survey.taxonomy import load_taxonomy
from tests.survey.fake_survey import COMPARISONS, EMPTY, FAILED, HEADLINES, MEASUREMENT, rate, value

TABLES = [table_attacks, table_defenses, lambda measurement: table_private_ai(measurement, [])]


def line(frame, **wanted):
    """The one line of a frame that fits, as a dict."""
    [found] = [row for row in frame.to_dict("records") if all(row[name] == each for name, each in wanted.items())]
    return found


@pytest.mark.parametrize(
    ("table", "parts"),
    [
        (TABLES[0], {"evasion", "poisoning", "threats"}),
        (TABLES[1], {"defenses against evasion", "defenses against poisoning"}),
        (TABLES[2], {"differential privacy", "cryptography"}),
    ],
)
def test_every_row_of_the_taxonomy_is_there_before_anything_is_measured(root, table, parts):
    entries = tomllib.loads((root / "data" / "taxonomy.toml").read_text(encoding="utf-8"))["row"]
    frame = table(EMPTY)
    names = [entry["name"].split(" (")[0] for entry in entries if entry["part"] in parts]
    assert frame.iloc[:, 0].tolist() == names
    assert set(frame["measured"]) == {"not measured yet"} and set(frame["result"]) == {"–"}
    assert frame["n"].isna().all()


def test_a_headline_is_told_with_all_that_it_rests_on():
    found = line(table_attacks(MEASUREMENT), attack="Fast gradient sign")
    assert (found["result"], found["n"], found["data"]) == ("75.0 %", 40, "MNIST")
    assert (found["setting"], found["budget"]) == ("LeNet, mnist, eps 0.2", "10 gradients an image")
    low, high = map(float, found["95 %"].split(" to "))
    assert low < 75 < high
    assert line(table_attacks(MEASUREMENT), attack="DeepFool")["95 %"] == "1.4 to 1.6"


@pytest.mark.parametrize(
    ("table", "name", "row"), [(TABLES[0], "Zeroth order", "zoo"), (TABLES[1], "TRADES", "trades")]
)
def test_a_row_that_failed_says_so_with_its_error(table, name, row):
    frame = table(MEASUREMENT)
    found = line(frame, **{frame.columns[0]: name})
    assert (found["result"], found["measured"]) == ("failed", f"failed: {FAILED[row]}")


def test_digits_only_is_said_where_there_is_no_larger_data_set():
    frame = table_attacks(MEASUREMENT)
    assert line(frame, attack="Projected gradient")["data"] == "digits only"
    assert frame[frame["attack"] == "BadNets"]["data"].tolist() == ["digits", "MNIST"]


@pytest.mark.parametrize(
    ("setup", "data"),
    [
        ("LeNet, mnist, eps 0.3", "MNIST"),
        ("ten digits, 50,000 MNIST images", "MNIST"),
        ("even or odd, 878 digits images", "digits"),
        ("mlp, faces, white-box", "faces"),
        ("language model of characters, 4 secret digits among 2,000 lines", "text"),
        ("Paillier, a key of 2,048 bits", ""),
    ],
)
def test_the_data_set_is_read_from_the_set_up(setup, data):
    assert data_of(rate("accuracy", 1, 2, setup)) == data


def test_defenses_against_evasion_are_told_by_what_survives():
    frame = table_defenses(MEASUREMENT)
    found = line(frame, defense="Thermometer encoding")
    assert [found[name] for name in ("clean", "undefended", "FGSM", "PGD", "adaptive ◆")] == [90, 0, 80, 20, 20]
    assert found["all attacks"] == 10  # fewer than survive any one of them
    assert (found["strongest"], found["adaptive attack"]) == ("adaptive ◆", "adaptive")  # of equals, who knows
    assert math.isnan(found["adaptive, L2 ◆"]) and math.isnan(found["proven"])


def test_certificates_and_detectors_are_told_by_what_survives():
    frame = table_defenses(MEASUREMENT)
    certified = line(frame, defense="Interval bounds")
    assert [certified[name] for name in ("PGD", "all attacks", "proven")] == [70, 60, 50]
    detector = line(frame, defense="MagNet")
    assert [detector[name] for name in ("adaptive, L2 ◆", "all attacks", "undefended")] == [20, 20, 10]
    assert detector["result"] == "80.0 %"  # evaded, as its headline says


def test_backdoors_are_told_by_what_does_not_open():
    frame = table_defenses(MEASUREMENT)
    found = line(frame, defense="Fine-pruning")
    assert [found[name] for name in ("badnets", "blended", "all attacks", "undefended")] == [40, 90, 40, 0]
    assert (found["strongest"], found["adaptive attack"]) == ("badnets", "blended")
    accuracy = line(frame, defense="Reject on negative impact")
    assert [accuracy[name] for name in ("guided flips", "all attacks", "undefended")] == [80, 80, 60]
    crew = line(frame, defense="Robust aggregation")
    assert [crew[name] for name in ("loud", "adaptive ◆", "all attacks")] == [100, 90, 90]


def test_defenses_of_one_kind_have_no_columns_of_the_other():
    evasion, poisoning = (table_defenses(MEASUREMENT, against=name) for name in ("evasion", "poisoning"))
    assert "badnets" not in evasion and "FGSM" not in poisoning
    assert len(evasion) + len(poisoning) == len(table_defenses(MEASUREMENT))
    heads = list(evasion.columns)
    assert heads.index("FGSM") < heads.index("PGD") < heads.index("adaptive ◆") < heads.index("all attacks")


def test_private_ai_is_told_with_its_costs():
    frame = table_private_ai(MEASUREMENT, [])
    assert line(frame, method="DP-SGD")["epsilon"] == 2
    assert line(frame, method="Privacy accounting")["epsilon"] == 2.6
    cryptonets = line(frame, method="CryptoNets")
    assert (cryptonets["time"], cryptonets["bytes"]) == ("19 s a batch", "301 MB a batch")
    paillier = line(frame, method="Paillier encryption")
    assert (paillier["time"], paillier["bytes"]) == ("275 ms an encryption", "544 B a ciphertext")


def test_published_figures_stand_beside_the_method_that_they_are_of():
    frame = table_private_ai(MEASUREMENT, COMPARISONS)
    published = frame[frame["published"] != ""]
    assert published["method"].tolist() == ["DP-SGD", "DP-SGD", "CryptoNets"]
    assert published["published"].tolist() == ["95.0 %", "80.0 %", "250 s"]
    assert published["result"].tolist() == ["94.0 %", "94.0 %", "25 s"]
    assert [words.split(":")[0].split(" (")[0] for words in published["verdict"]] == [
        "reproduced", "deviates", "not comparable",
    ]  # fmt: skip
    assert set(published["source"]) == {"Somebody 2016 (V)"}


@pytest.mark.parametrize("row", list(COSTS))
def test_what_cryptography_costs_is_found_where_its_headlines_keep_it(row):
    try:
        headlines = FULL[row]()
    except ValueError as error:
        pytest.skip(f"not measured here: {error}")
    [method] = [each for each in load_taxonomy() if each.id == row]
    for headline in headlines:
        found = Line(method, headline)
        assert seconds_of(found) > 0 and bytes_of(found) > 0


def test_the_file_is_named_with_its_day():
    assert source_of(MEASUREMENT) == "data/results/survey_quick.json, measured 2026-02-03, seed 3"


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("measurement", [None, {}, {"rows": 3}, {"rows": [{"attack": "pgd"}]}, [1]])
def test_what_is_no_measurement_of_the_survey_is_refused(refuses, table, measurement):
    refuses(lambda measurement: table(measurement), {"measurement": measurement}, "measurement", "spai-lab survey")


def test_no_other_defenses_can_be_asked_for(refuses):
    refuses(table_defenses, {"measurement": EMPTY, "against": "extraction"}, "against", "'evasion', 'poisoning'")


def test_lines_follow_the_taxonomy_and_not_the_file():
    turned = MEASUREMENT | {"rows": MEASUREMENT["rows"][::-1]}
    assert lines_of(turned, "evasion") == lines_of(MEASUREMENT, "evasion")
    assert {each.row.id for each in lines_of(MEASUREMENT, "evasion") if each.headline} == {
        row for row in ("fgsm", "pgd", "deepfool") if row in HEADLINES
    }
    assert value("a", 1.0, "s", "b").interval is None
