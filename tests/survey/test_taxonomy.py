"""The taxonomy against the survey's list of rows, the code, the chapters and the tests that it names."""

import ast
import importlib
import inspect
import json
import pkgutil
import re
from pathlib import Path

import pytest

from spai_lab.survey.taxonomy import CHAPTERS, SHAPES, function_of, load_taxonomy, rows_of

CONTRACT = {
    "evasion": """
        lbfgs fgsm bim pgd mim jsma deepfool carlini_wagner universal_perturbation spatial bpda eot auto_attack
        advgan patch substitute transfer zoo nes square one_pixel boundary hop_skip_jump
    """,
    "poisoning": """
        label_flip svm_poisoning back_gradient generative_poisoning influence feature_collision convex_polytope
        gradient_matching badnets blended trojan clean_label_backdoor hidden_trigger federated_backdoor
    """,
    "defenses against evasion": """
        defensive_distillation thermometer random_resize_pad activation_pruning input_transformation defense_gan
        adversarial_training fast_adversarial_training ensemble_adversarial_training trades gradient_regularization
        randomized_smoothing ibp convex_relaxation feature_squeezing magnet lid
    """,
    "defenses against poisoning": """
        sphere_slab roni activation_clustering spectral_signatures partition_aggregation fine_pruning neural_cleanse
        strip robust_aggregation
    """,
    "threats": """
        model_inversion membership_shadow membership_loss lira attribute_inference extraction_equations
        extraction_learning gradient_leakage gan_attack memorization
    """,
    "differential privacy": """
        mechanisms selective_sgd dp_sgd accounting objective_perturbation functional_mechanism pate dp_audit
    """,
    "cryptography": """
        paillier ckks cryptonets secret_sharing oblivious_transfer garbled_circuit secureml hybrid_inference
        federated
    """,
    "tables and figures": """
        table_attack_types figure_phases figure_knowledge table_attacks table_defenses figure_privacy_roles
        table_private_ai
    """,
}

METHOD_PACKAGES = ("attacks", "defenses", "privacy", "crypto")
ROWS = load_taxonomy()
RUNNABLE = [row for row in ROWS if row.runnable]
runnable = pytest.mark.parametrize("row", RUNNABLE, ids=lambda row: row.id)


def reference_of(function) -> str:
    """What the docstring says from `Reference` to the next heading or the end."""
    return re.split(r"\n\s*(?:Survey|Simplified):", inspect.getdoc(function).partition("Reference:")[2])[0]


def calls_in(notebook: Path) -> set[str]:
    """The names of the functions that a notebook's code cells call, or make parties of by `partial`; Jupyter's own
    commands are set aside.
    """
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    trees = [ast.parse(re.sub(r"^(\s*)[%!].*$", r"\1pass", source, flags=re.M)) for source in sources]
    calls = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)]
    called = [call.func for call in calls]
    called += [call.args[0] for call in calls if getattr(call.func, "id", "") == "partial"]
    return {
        function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "") for function in called
    }


@pytest.mark.parametrize("part", CONTRACT)
def test_every_row_of_the_contract_is_there_in_its_order(part):
    assert [row.id for row in rows_of(ROWS, part)] == CONTRACT[part].split()


def test_nothing_is_there_but_the_contract():
    assert len(ROWS) == sum(len(ids.split()) for ids in CONTRACT.values())


def test_the_gradient_attacks_and_the_overview_run():
    chapters = {row.id: row.notebook for row in RUNNABLE}
    assert (
        chapters.items()
        >= {
            "fgsm": "02_gradient_attacks",
            "bim": "02_gradient_attacks",
            "pgd": "02_gradient_attacks",
            "mim": "02_gradient_attacks",
            "table_attack_types": "01_models_and_threats",
            "figure_phases": "01_models_and_threats",
            "figure_knowledge": "02_gradient_attacks",
        }.items()
    )


@runnable
def test_functions_import(row):
    assert all(callable(function_of(reference)) for reference in row.functions)


def names_paper(function, paper: str) -> bool:
    """Whether a docstring's `Reference` gives a paper's first author, year and number."""
    identifier = re.search(r"\d{4}\.\d{4,5}|\d{4}/\d+", paper)
    author, year = re.match(r"([\w-]+).*? (\d{4})", paper).groups()
    return all(word in reference_of(function) for word in (author, year, identifier[0] if identifier else author))


@runnable
def test_functions_name_their_paper(row):
    papers, functions = row.paper.split("; "), [function_of(reference) for reference in row.functions]
    unnamed = [paper for paper in papers if not any(names_paper(function, paper) for function in functions)]
    assert unnamed == []
    silent = [f.__name__ for f in functions if not any(names_paper(f, paper) for paper in papers)]
    assert silent == []


@runnable
def test_functions_are_called_in_their_chapter(row, root):
    notebook = root / "notebooks" / f"{row.notebook}.ipynb"
    names = {reference.split(":")[1] for reference in row.functions}
    assert names <= calls_in(notebook)


@runnable
def test_tests_exist_and_name_the_method(row, root):
    files = [root / test for test in row.tests]
    assert [file for file in files if not file.is_file()] == []
    names = {reference.split(":")[1] for reference in row.functions}
    assert names <= {word for file in files for word in re.findall(r"\w+", file.read_text(encoding="utf-8"))}


def public_methods() -> set[str]:
    """The functions that the packages with methods export, as "module:name", where they are defined."""
    found = set()
    for package in METHOD_PACKAGES:
        if importlib.util.find_spec(f"spai_lab.{package}") is None:
            continue
        top = importlib.import_module(f"spai_lab.{package}")
        packages = [info.name for info in pkgutil.walk_packages(top.__path__, f"{top.__name__}.") if info.ispkg]
        for module in map(importlib.import_module, [top.__name__, *packages]):
            exported = [getattr(module, name) for name in getattr(module, "__all__", ())]
            found |= {f"{f.__module__}:{f.__name__}" for f in exported if inspect.isfunction(f)}
    return found


def test_no_public_method_is_unregistered():
    registered = {reference for row in ROWS for reference in row.functions}
    assert "spai_lab.attacks.evasion.gradient:pgd" in public_methods()
    assert public_methods() - registered == set()


def test_no_table_or_figure_of_the_survey_is_unregistered():
    registered = {reference for row in ROWS for reference in row.functions}
    drawn = {
        f"spai_lab.survey.{module}:{name}"
        for module in ("tables", "figures", "roles")
        for name, function in inspect.getmembers(importlib.import_module(f"spai_lab.survey.{module}"))
        if re.match(r"(table|figure)_", name) and inspect.isfunction(function)
    }
    assert drawn and drawn <= registered


def test_every_chapter_that_is_written_is_known(root):
    assert {path.stem for path in (root / "notebooks").glob("*.ipynb")} <= set(CHAPTERS)


GOOD = {
    "id": "fgsm",
    "name": "Fast gradient sign (FGSM)",
    "part": "evasion",
    "class": "gradient",
    "shape": "evasion_attack",
    "access": "white-box",
    "paper": "Goodfellow 2014, arXiv 1412.6572",
    "functions": ["spai_lab.attacks.evasion.gradient:fgsm"],
    "notebook": "02_gradient_attacks",
    "tests": ["tests/attacks/evasion/test_oracles.py"],
    "status": "runnable",
}


def written(path: Path, *entries: dict) -> Path:
    lines = []
    for entry in entries:
        lines += ["[[row]]", *(f"{key} = {json.dumps(value)}" for key, value in entry.items())]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_a_good_row_is_read_as_it_is(tmp_path):
    (row,) = load_taxonomy(written(tmp_path / "t.toml", GOOD))
    assert (row.id, row.class_, row.functions, row.who, row.chapter, row.runnable) == (
        "fgsm",
        "gradient",
        ("spai_lab.attacks.evasion.gradient:fgsm",),
        ("white-box",),
        "02",
        True,
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": "FGSM"}, r"row 'FGSM': id holds 'FGSM'; accepted is lower-case"),
        ({"name": " "}, r"row 'fgsm': name is ' '; accepted is a string that is not empty"),
        ({"name": 3}, r"row 'fgsm': name is 3; accepted is a string"),
        ({"part": "escape"}, r"row 'fgsm': part is 'escape'; accepted are evasion, poisoning"),
        ({"class": ""}, r"row 'fgsm': class is ''"),
        ({"shape": "attack"}, r"row 'fgsm': shape is 'attack'; accepted are evasion_attack"),
        ({"access": "white"}, r"row 'fgsm': access is 'white'; accepted are white-box, black-box"),
        ({"access": "white-box, user"}, r"row 'fgsm': access is 'white-box, user'"),
        (
            {"paper": "Goodfellow, 1412.6572"},
            r"row 'fgsm': paper holds 'Goodfellow, 1412.6572'; accepted is Author 2014",
        ),
        ({"paper": "Goodfellow 2014, arXiv 1412"}, r"paper holds"),
        ({"functions": "fgsm"}, r"row 'fgsm': functions is 'fgsm'; accepted is a list of strings"),
        ({"functions": ["fgsm"]}, r"row 'fgsm': functions holds 'fgsm'; accepted is spai_lab.module:name"),
        ({"functions": []}, r"row 'fgsm': status is 'runnable' and functions is \[\]"),
        ({"notebook": "02"}, r"row 'fgsm': notebook is '02'; accepted are 00_start_here"),
        ({"tests": [1]}, r"row 'fgsm': tests is \[1\]; accepted is a list of strings"),
        ({"tests": ["test_fgsm"]}, r"row 'fgsm': tests holds 'test_fgsm'; accepted is tests/folder/test_name.py"),
        ({"tests": []}, r"row 'fgsm': status is 'runnable' and tests is \[\]"),
        ({"status": "done"}, r"row 'fgsm': status is 'done'; accepted are runnable, planned"),
        ({"status": "planned"}, r"row 'fgsm': status is 'planned' and functions is \['spai_lab"),
        ({"year": "2014"}, r"row 'fgsm': missing fields \[\], unknown fields \['year'\]"),
    ],
)
def test_a_row_that_breaks_a_rule_is_named(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        load_taxonomy(written(tmp_path / "t.toml", GOOD | change))


@pytest.mark.parametrize("field", GOOD)
def test_a_missing_field_is_named(tmp_path, field):
    entry = {key: value for key, value in GOOD.items() if key != field}
    with pytest.raises(ValueError, match=rf"row .*: missing fields \['{field}'\]"):
        load_taxonomy(written(tmp_path / "t.toml", entry))


def test_an_id_stands_once(tmp_path):
    with pytest.raises(ValueError, match=r"t.toml holds these ids more than once: fgsm"):
        load_taxonomy(written(tmp_path / "t.toml", GOOD, GOOD))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[[row]", "t.toml is not valid TOML"),
        (b"\xff", "t.toml is not valid TOML"),
        (b"", r"t.toml holds \[\]; accepted are \[\[row\]\] tables and nothing else"),
        (b"[[rows]]\nid = 'a'", r"t.toml holds \['rows'\]"),
        (b"row = ['a']", r"t.toml holds"),
    ],
)
def test_a_file_that_is_no_taxonomy_is_refused(tmp_path, content, message):
    (tmp_path / "t.toml").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load_taxonomy(tmp_path / "t.toml")


def test_every_shape_says_what_it_is():
    assert all(SHAPES.values()) and {row.shape for row in ROWS} <= SHAPES.keys()
