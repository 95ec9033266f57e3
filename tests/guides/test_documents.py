"""The other papers of the project: what they link to and command exists, and they agree on the version."""

import re
import tomllib

import pytest
import yaml

from spai_lab import cli

PAGES = ("docs/LECTURERS.md", "docs/CONTRIBUTING.md", "docs/ETHICS.md", "CHANGELOG.md")
AUTHORS = ("Bae", "Jang", "Jung", "Jang", "Ha", "Lee", "Yoon")


@pytest.fixture(scope="module")
def pages(root):
    return {name: (root / name).read_text(encoding="utf-8") for name in PAGES}


@pytest.fixture(scope="module")
def citation(root):
    return yaml.safe_load((root / "CITATION.cff").read_text(encoding="utf-8"))


def anchors(text: str) -> set[str]:
    """The anchors that a code host makes of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_to_files_and_headings(root, pages, name):
    for target in re.findall(r"\]\(([^)\s]+)\)", pages[name]):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = (root / name).parent / path if path else root / name
        assert file.resolve().exists(), target
        if anchor:
            assert anchor in anchors(file.read_text(encoding="utf-8")), target


def test_commands_that_are_written_down_exist(pages, run):
    known = set(cli._parser()._subparsers._group_actions[0].choices)
    started = set(run.parser()._subparsers._group_actions[0].choices)
    text = "\n".join(pages.values())
    named, begun = set(re.findall(r"`spai-lab ([a-z]+)", text)), set(re.findall(r"run\.py ([a-z]+)", text))
    assert {"guides", "assignments", "arena"} <= named <= known
    assert {"lab", "lecture", "book", "test"} <= begun <= started


def test_assignment_commands_of_the_courses_are_understood(pages):
    commands = re.findall(r"`spai-lab (assignments export COURSE --chapters [\d ]+)`", pages["docs/LECTURERS.md"])
    assert len(commands) >= 3
    for command in commands:
        options = cli._parser().parse_args(command.split())
        assert options.chapters and str(options.folder) == "COURSE"


@pytest.mark.parametrize("name", ["docs/CONTRIBUTING.md", "docs/ETHICS.md"])
def test_functions_and_files_in_backticks_of_the_guides_exist(root, pages, name):
    for path in set(re.findall(r"`((?:spai_lab|tests|data)/[\w/]+\.\w+)`", pages[name])):
        assert (root / path).exists(), path


def test_nothing_of_a_workplace_is_in_the_papers(pages, root):
    for text in (*pages.values(), (root / "CITATION.cff").read_text(encoding="utf-8")):
        assert not re.search(r"/work/|/home/|/root/|localhost|SPAI_DATA=/", text)


# --- citation and changelog


def test_the_citation_file_keeps_the_rules_of_its_format(citation):
    assert {"authors", "cff-version", "message", "title"} <= citation.keys()
    assert citation["cff-version"] == "1.2.0" and citation["type"] == "software"
    allowed = {
        "abstract",
        "authors",
        "cff-version",
        "keywords",
        "license",
        "message",
        "preferred-citation",
        "title",
        "type",
        "version",
    }
    assert citation.keys() <= allowed
    assert citation["authors"] == [{"name": "The SPAI Lab authors"}]
    assert len(set(citation["keywords"])) == len(citation["keywords"])


def test_the_preferred_citation_is_the_survey(citation):
    survey = citation["preferred-citation"]
    assert {"authors", "title", "type"} <= survey.keys()
    assert survey["title"] == "Security and Privacy Issues in Deep Learning" and isinstance(survey["year"], int)
    assert tuple(person["family-names"] for person in survey["authors"]) == AUTHORS
    assert all(person.keys() == {"family-names", "given-names"} for person in survey["authors"])
    assert [(each["type"], each["value"]) for each in survey["identifiers"]] == [("other", "arXiv:1807.11655")]


def test_version_and_license_are_the_same_everywhere(root, citation, pages):
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    entries = re.findall(r"^## \[(\S+)\] - (\S+)$", pages["CHANGELOG.md"], re.MULTILINE)
    assert citation["version"] == project["version"] == entries[0][0]
    assert citation["license"] == project["license"]


def test_the_changelog_keeps_its_format(pages):
    text = pages["CHANGELOG.md"]
    kinds = re.findall(r"^### (.+)$", text, re.MULTILINE)
    assert set(kinds) <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"} and kinds[0] == "Added"
    dates = [date for _, date in re.findall(r"^## \[(\S+)\] - (\S+)$", text, re.MULTILINE)]
    assert all(date == "Unreleased" or re.fullmatch(r"\d{4}-\d\d-\d\d", date) for date in dates)
    assert "Unreleased" not in dates[1:]
