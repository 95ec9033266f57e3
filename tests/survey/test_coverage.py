"""The README's coverage table is the taxonomy's, and writing what is generated touches nothing else."""

import pytest

from spai_lab.survey.coverage import coverage_table, update_readme
from spai_lab.survey.taxonomy import load_taxonomy
from spai_lab.survey.totals import ledger_section

BEGIN, END = "<!-- coverage:begin -->", "<!-- coverage:end -->"
LEDGER = "<!-- ledger:begin -->\n{}\n<!-- ledger:end -->"


def test_the_counts_add_up_to_the_taxonomy():
    cells = [line.split("|") for line in coverage_table().splitlines()[4:]]
    rows = load_taxonomy()
    assert sum(int(cell[3]) for cell in cells) == len(rows)
    assert sum(int(cell[4]) for cell in cells) == sum(row.status == "runnable" for row in rows)


def test_the_readme_shows_the_table_of_today(root):
    text = (root / "README.md").read_text(encoding="utf-8")
    assert text.split(BEGIN)[1].split(END)[0].strip() == coverage_table()


def test_what_stands_around_the_table_stays(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(f"Über uns\n{BEGIN}\nold\n{END}\nafter\n{LEDGER.format('old')}\n", encoding="utf-8")
    assert update_readme(readme) is True
    ledger = LEDGER.format(ledger_section())
    assert readme.read_text(encoding="utf-8") == f"Über uns\n{BEGIN}\n{coverage_table()}\n{END}\nafter\n{ledger}\n"
    assert update_readme(readme) is False


@pytest.mark.parametrize(
    "text", ["", BEGIN, f"{END}\n{BEGIN}", f"{BEGIN}{BEGIN}{END}", f"{BEGIN}{END}{END}", f"{BEGIN}{END}"]
)
def test_a_readme_without_its_marks_is_refused_and_stays(tmp_path, text):
    readme = tmp_path / "README.md"
    readme.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"README.md lacks its marks"):
        update_readme(readme)
    assert readme.read_text(encoding="utf-8") == text
