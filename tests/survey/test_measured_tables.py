"""The measured tables against counts by hand, and against the taxonomy's file."""

import math
import re
import tomllib

import pytest

from spai_lab.survey.full_crypto import FULL
from spai_lab.survey.ledger import Comparison, published
from spai_lab.survey.ledger_tables import ledger_frame, ledger_in_words
from spai_lab.survey.measure import load_measurement
from spai_lab.survey.measured_private import COSTS, bytes_of, seconds_of, table_private_ai
from spai_lab.survey.measured_rows import Line, data_of, lines_of, source_of
from spai_lab.survey.measured_survival import attack_columns
from spai_lab.survey.measured_tables import table_attacks, table_defenses
from spai_lab.survey.measured_terms import TERMS, table_terms
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
    assert set(frame["measured"]) == {"not measured yet"}
    assert set(frame.get("result", ["–"])) == {"–"}
    assert frame["n"].isna().all()


def test_a_headline_is_told_with_all_that_it_rests_on():
    found = line(table_attacks(MEASUREMENT), attack="Fast gradient sign")
    assert (found["result"], found["n"], found["data"]) == ("75.0 %", 40, "MNIST")
    assert (found["setting"], found["budget"]) == ("LeNet, mnist, eps 0.2", "10 gradients an image")
    low, high = map(float, found["95 %"].removesuffix(" %").split(" to "))
    assert low < 75 < high
    assert line(table_attacks(MEASUREMENT), attack="DeepFool")["95 %"] == "1.4 to 1.6 L2"


def test_what_matters_stands_first():
    attacks = list(table_attacks(MEASUREMENT).columns)
    assert attacks[:6] == ["attack", "result", "95 %", "n", "data", "measured"]
    private = list(table_private_ai(MEASUREMENT, []).columns)
    assert private[:4] == ["method", "result", "95 %", "n"]
    for columns in (attacks, private, list(table_defenses(MEASUREMENT).columns)):
        assert columns[-3:] == ["setting", "budget", "chapter"]


@pytest.mark.parametrize(
    ("table", "name", "row"), [(TABLES[0], "Zeroth order", "zoo"), (TABLES[1], "TRADES", "trades")]
)
def test_a_row_that_failed_says_so_with_its_error(table, name, row):
    frame = table(MEASUREMENT)
    found = line(frame, **{frame.columns[0]: name})
    assert (found.get("result", "failed"), found["measured"]) == ("failed", f"failed: {FAILED[row]}")


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
    assert (found["strongest attack"], found["knows it ◆"]) == ("adaptive ◆", "adaptive")  # of equals, who knows
    assert (found["measured"], found["n"]) == ("images rightly read, each under all attacks", 10)
    assert math.isnan(found["adaptive, L2 ◆"]) and math.isnan(found["proven"])


def test_certificates_and_detectors_are_told_by_what_survives():
    frame = table_defenses(MEASUREMENT)
    certified = line(frame, defense="Interval bounds")
    assert [certified[name] for name in ("PGD", "all attacks", "proven")] == [70, 60, 50]
    detector = line(frame, defense="MagNet")
    assert [detector[name] for name in ("adaptive, L2 ◆", "all attacks", "undefended")] == [20, 20, 10]
    low, high = map(float, detector["95 %"].removesuffix(" %").split(" to "))
    assert low < 20 < high  # of what survives, though its headline counts what evades
    assert detector["measured"].startswith("attacked images detected or rightly read")


def test_backdoors_are_told_by_what_does_not_open():
    frame = table_defenses(MEASUREMENT)
    found = line(frame, defense="Fine-pruning")
    assert [found[name] for name in ("badnets", "blended", "strongest", "undefended")] == [40, 90, 40, 0]
    assert (found["strongest attack"], found["knows it ◆"]) == ("badnets", "blended")
    assert found["measured"] == "triggers that do not open, under the strongest attack"
    accuracy = line(frame, defense="Reject on negative impact")
    assert [accuracy[name] for name in ("guided flips", "strongest", "undefended")] == [80, 80, 60]
    assert accuracy["knows it ◆"] == "none: not in this book"
    crew = line(frame, defense="Robust aggregation")
    assert [crew[name] for name in ("loud", "adaptive ◆", "strongest")] == [100, 90, 90]
    assert crew["measured"] == "triggers that do not open behind the median, under the strongest attack"


def test_defenses_of_one_kind_have_no_columns_of_the_other():
    evasion, poisoning = (table_defenses(MEASUREMENT, against=name) for name in ("evasion", "poisoning"))
    assert not {"badnets", "strongest"} & set(evasion) and not {"FGSM", "all attacks", "proven"} & set(poisoning)
    for frame in (evasion, poisoning):
        assert not {"result", "part"} & set(frame)
        assert frame.notna().any().all()
    assert len(evasion) + len(poisoning) == len(table_defenses(MEASUREMENT))
    heads = list(evasion.columns)
    assert heads.index("all attacks") < heads.index("FGSM") < heads.index("PGD") < heads.index("adaptive ◆")


def test_private_ai_is_told_with_its_costs():
    frame = table_private_ai(MEASUREMENT, [])
    assert line(frame, method="DP-SGD")["epsilon"] == 2
    assert line(frame, method="Privacy accounting")["epsilon"] == 2.6
    cryptonets = line(frame, method="CryptoNets")
    counted = "a batch, client and server"
    assert (cryptonets["time"], cryptonets["bytes"]) == (f"19 s {counted}", f"301 MB {counted}")
    paillier = line(frame, method="Paillier encryption")
    assert (paillier["time"], paillier["bytes"]) == ("275 ms an encryption", "544 B a ciphertext")


def test_published_figures_stand_beside_the_method_that_they_are_of():
    frame = table_private_ai(MEASUREMENT, COMPARISONS)
    published = frame[frame["published"] != ""]
    assert published["method"].tolist() == ["DP-SGD", "DP-SGD", "CryptoNets"]
    assert published["published"].tolist() == ["95.0 %", "80.0 %", "250 s"]
    assert published["result"].tolist() == ["94.0 %", "94.0 %", "25 s"]
    assert published["verdict"].tolist() == ["reproduced", "deviates", "not comparable"]
    assert published["gap"].tolist() == ["-1 points", "+14 points", "-225 s"]
    assert published["reason"].tolist() == ["", "", "another machine"]
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


@pytest.mark.parametrize("against", ["evasion", "poisoning"])
def test_every_column_of_the_matrix_is_explained(against):
    terms = table_terms(MEASUREMENT, against=against)
    columns = {name.removesuffix(" ◆") for name in table_defenses(MEASUREMENT, against=against).columns}
    assert set(terms["name"]) - {"◆"} <= columns
    lines = lines_of(MEASUREMENT, f"defenses against {against}")
    assert set(attack_columns(lines)) <= set(terms["name"])
    assert terms["meaning"].str.len().between(10, 100).all()


@pytest.mark.parametrize("against", ["evasion", "poisoning"])
@pytest.mark.parametrize("profile", ["quick", "full"])
def test_the_glossary_knows_every_attack_that_was_run(against, profile):
    try:
        lines = lines_of(load_measurement(f"survey_{profile}"), f"defenses against {against}")
    except ValueError as error:
        pytest.skip(f"not measured here: {error}")
    assert set(attack_columns(lines)) <= set(TERMS[against])


def test_the_ledger_has_a_line_for_each_counterpart_in_plain_digits():
    figures = list(published().values())
    twice = next(each for each in figures if not each.get("unit") and each["standing"] == "V")
    timed = next(each for each in figures if each.get("unit") == "s")
    made = [
        Comparison(twice, twice["value"], 10, (0.1, 0.2), "ours"),
        Comparison(twice, 0.0, 20, (0.0, 0.0), "ours", "", "a reason"),
        Comparison(timed, timed["value"] - 242.09, 5, (1.5, 2.5), "ours", "another machine"),
    ]
    frame = ledger_frame(made)
    assert len(frame) == len(figures) + 1
    met = frame[frame["n"].notna()].set_index("n")
    assert met["gap"].tolist()[::2] == ["0 points", "-242 s"]
    assert met.loc[20, ["verdict", "reason", "95 %"]].tolist() == ["deviates", "a reason", ""]
    assert met.loc[10, "95 %"] == "10.0 to 20.0 %" and met.loc[5, "95 %"] == "1.5 to 2.5 s"
    assert met.loc[5, ["verdict", "reason"]].tolist() == ["not comparable", "another machine"]
    assert (frame["verdict"] == "not measured").sum() == len(figures) - 2
    assert f"{len(frame)} lines for {len(figures)} published figures, since" in ledger_in_words(made)


def test_the_whole_ledger_shows_no_exponent_and_no_sign_at_zero():
    cells = ledger_frame()[["published", "measured", "gap", "tolerance", "95 %"]].to_numpy().ravel().tolist()
    assert not [cell for cell in cells if re.search(r"\de[+-]?\d|[+-]0 ", cell)]


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
