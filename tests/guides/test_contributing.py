"""The contributor's guide works: its worked example is read from the page, applied to a copy of the project, and run.

One process does it all, since importing torch is what takes longest: first the example as it stands, then the same with
a fault planted in each part, which the step made for it must notice.
"""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

PAGE = "docs/CONTRIBUTING.md"
BLOCK = re.compile(r"^<!-- (new|append|edit|run)(?:: (\S+))? -->\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FUNCTION = "spai_lab/attacks/evasion/nesterov.py"
ORACLE = "tests/attacks/evasion/test_nesterov.py::test_pixels_are_those_of_torchattacks[lenet-targeted]"
INI = """[pytest]
addopts = --import-mode=importlib --doctest-modules --strict-markers
markers =
    oracle: compares with a library that somebody else wrote
    full: long
"""  # what pyproject.toml asks for, without the plugins, which take seconds to import

# In a fresh process, in the copy: runs what the guide says, each part again with its faults; prints what came out.
HARNESS = '''
import contextlib, io, importlib, json, shlex, sys
from pathlib import Path
import pytest

sys.path.insert(0, str(Path.cwd()))
steps, faults = json.loads(Path("steps.json").read_text())
quiet = ["-q", "-c", "pytest.ini", "-p", "no:cacheprovider", "--color=no"]


class Counted:
    """What a run of pytest collected and what failed in it."""

    def __init__(self):
        self.passed, self.failed = 0, []

    def pytest_runtest_logreport(self, report):
        self.passed += report.when == "call" and report.passed
        if report.failed:
            self.failed.append(report.nodeid)

    def pytest_collectreport(self, report):
        if report.failed:
            self.failed.append(report.nodeid)


def tested(words):
    for name in [name for name in sys.modules if name.startswith("tests.")]:
        del sys.modules[name]
    counted = Counted()
    with contextlib.redirect_stdout(io.StringIO()) as said:
        code = pytest.main([*quiet, *words], plugins=[counted])
    return {"code": int(code), "passed": counted.passed, "failed": counted.failed, "said": said.getvalue()[-3000:]}


def attempt(check):
    try:
        return check()
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def row():
    from spai_lab.survey.taxonomy import function_of, load_taxonomy

    last = load_taxonomy()[-1]
    functions = [function_of(name).__name__ for name in last.functions]
    return [last.id, *functions, all(Path(test).exists() for test in last.tests)]


def explorer():
    from spai_lab.widgets.choices import ATTACK_NAMES, ATTACKS
    from spai_lab.widgets.epsilon_explorer import sweep

    assert list(ATTACKS) == list(ATTACK_NAMES)
    found = sweep("digits", "softmax", "ni_fgsm", "linf", None, 4)
    return [found.attack, bool(found.fooled[-1].all()), not found.fooled[0].any().item()]


def exercise():
    from spai_lab.exercises import EXERCISES
    from spai_lab.exercises.exercise import judge, sentence

    here = EXERCISES["look_ahead"]
    namespace = {}
    exec(here.stub, namespace)
    verdicts = [judge(here, answer) for answer in (here.solution, namespace["my_look_ahead"], *here.mistakes)]
    said = [" ".join(repr(each).split()) for each in verdicts]
    fit = [" ".join(sentence(mistake).split()) in words for mistake, words in zip(here.mistakes, said[2:], strict=True)]
    return [*(each.verdict for each in verdicts[:2]), *sorted({each.verdict for each in verdicts[2:]}), all(fit)]


def again(file):
    """Import a file of the package anew, and the package that takes names from it."""
    if file.endswith(".py"):
        module = file.removesuffix(".py").replace("/", ".")
        for name in (module, module.rpartition(".")[0]):
            importlib.reload(sys.modules[name])


done = {"run": [tested(shlex.split(words)) for words in steps]}
parts = {"row": row, "explorer": explorer, "exercise": exercise}
done |= {name: attempt(check) for name, check in parts.items()}
done["faults"] = {}
for name, (file, right, wrong, part) in faults.items():
    path = Path(file)
    whole = path.read_text()
    assert whole.count(right) == 1, (name, right)
    path.write_text(whole.replace(right, wrong))
    again(file)
    done["faults"][name] = attempt(parts[part]) if part in parts else tested([part])
    path.write_text(whole)
    again(file)
Path("done.json").write_text(json.dumps(done))
'''

# What is planted: the file, what stands there, what is put in its place, and the part that must notice.
CHAPTER, TAXONOMY = "spai_lab/exercises/chapter_02.py", "data/taxonomy.toml"
STEP = "(x_adv + ascent * alpha * steepest(g, norm)"
FAULTS = {
    "no projection": (FUNCTION, f"project{STEP}, x, eps, norm)", f"{STEP}).clamp(0, 1)", ORACLE),
    "no look ahead": (FUNCTION, "gradient(model, x_nes, y)", "gradient(model, x_adv, y)", ORACLE),
    "looks back when targeted": (FUNCTION, "x_adv + ascent * alpha * decay * g", "x_adv + alpha * decay * g", ORACLE),
    "L1 norm of the paper": (FUNCTION, ".flatten(1).mean(1)", ".flatten(1).sum(1)", ORACLE),
    "keeps momentum without decay": (FUNCTION, "g = decay * g + slope", "g = g + slope", FUNCTION),
    "a function that is not there": (TAXONOMY, "nesterov:ni_fgsm", "nesterov:nifgsm", "row"),
    "a paper that is no paper": (TAXONOMY, 'arXiv 1908.06281"', 'arXiv 1908"', "row"),
    "a solution that is wrong": (
        CHAPTER,
        "return x + step_size * decay * g\n",
        "return x + step_size * decay\n",
        "exercise",
    ),
    "a mistake that is none": (CHAPTER, "x - step_size * decay * g", "x + 1.0 * step_size * decay * g", "exercise"),
}


@dataclass(frozen=True)
class Block:
    """One marked block of the guide: what to do with it, the file that it concerns, and its text."""

    verb: str
    path: str
    text: str


def blocks_of(page: str) -> list[Block]:
    """The marked blocks of a page, in its order."""
    return [Block(verb, path, text) for verb, path, text in BLOCK.findall(page)]


def edited(text: str, diff: str) -> str:
    """A text after a small diff, whose context must be there exactly once."""
    lines = diff.splitlines(keepends=True)
    old = "".join(line[1:] for line in lines if line[0] in " -")
    new = "".join(line[1:] for line in lines if line[0] in " +")
    if text.count(old) != 1:
        raise ValueError(f"this stands there {text.count(old)} times, not once:\n{old}")
    return text.replace(old, new)


def copied(root: Path, folder: Path) -> Path:
    """What the example needs of the project: the package, the data without what is large, the tests of attacks."""
    folder.mkdir()
    shutil.copytree(root / "spai_lab", folder / "spai_lab")  # with what Python compiled of it, which saves seconds
    (folder / "data").mkdir()
    for path in (root / "data").iterdir():
        if path.is_dir():
            (folder / "data" / path.name).symlink_to(path, target_is_directory=True)
        else:
            shutil.copy(path, folder / "data")
    (folder / "tests" / "attacks" / "evasion").mkdir(parents=True)
    shared = ("conftest.py", "test_inputs.py", "test_least_distortion_properties.py")
    for name in ("conftest.py", *(f"attacks/evasion/{name}" for name in shared)):
        shutil.copy(root / "tests" / name, folder / "tests" / name)
    (folder / "pytest.ini").write_text(INI, encoding="utf-8")
    return folder


def apply(blocks: list[Block], folder: Path) -> list[str]:
    """Do what the blocks say; the arguments for pytest of the commands among them."""
    commands = []
    for block in blocks:
        path = folder / block.path
        if block.verb == "run":
            commands += re.findall(r"^python3 run\.py test -- (.+)$", block.text, re.MULTILINE)
        elif block.verb == "new":
            assert not path.exists(), f"{block.path} is there already"
            path.write_text(block.text, encoding="utf-8")
        else:
            before = path.read_text(encoding="utf-8")
            after = before + block.text if block.verb == "append" else edited(before, block.text)
            path.write_text(after, encoding="utf-8")
    return commands


@pytest.fixture(scope="module")
def blocks(root):
    return blocks_of((root / PAGE).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def done(root, blocks, tmp_path_factory):
    """What came out of the example, run in a copy of the project."""
    if importlib.util.find_spec("torchattacks") is None:
        pytest.skip("torchattacks is not installed")
    folder = copied(root, tmp_path_factory.mktemp("guide") / "project")
    commands = apply(blocks, folder)
    (folder / "steps.json").write_text(json.dumps([commands, FAULTS]), encoding="utf-8")
    (folder / "harness.py").write_text(HARNESS, encoding="utf-8")
    settings = {"SPAI_DATASET": "digits", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    environment = {**os.environ, "PYTHONPATH": str(folder), **settings}
    ran = subprocess.run(
        [sys.executable, "harness.py"], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return json.loads((folder / "done.json").read_text(encoding="utf-8"))


def test_every_step_of_the_guide_has_its_block(root, blocks):
    text = (root / PAGE).read_text(encoding="utf-8")
    assert re.findall(r"^### Step (\d)", text, re.MULTILINE) == list("12345")
    assert [block.verb for block in blocks] == [
        *("new", "edit", "edit", "edit", "new", "append", "edit", "edit", "edit", "edit", "append", "run")
    ]
    example = text.split("## Add an attack in five steps")[1].split("## Add something else")[0]
    assert example.count("\n```") == 2 * len(blocks), "a block of the example has no mark, so nothing tests it"


@pytest.mark.oracle
def test_the_commands_of_the_guide_pass(done):
    example, shared = done["run"]
    assert (example["code"], example["failed"]) == (0, []), example["said"]
    assert example["passed"] == 5, "the doctest, and a natural and a robust model, each untargeted and targeted"
    assert (shared["code"], shared["failed"]) == (0, []), shared["said"]
    assert shared["passed"] >= 5, "exported, the attack meets the tests that all attacks share"


@pytest.mark.oracle
def test_row_explorable_and_exercise_of_the_guide_are_taken(done):
    assert done["row"] == ["ni_fgsm", "ni_fgsm", True]
    assert done["explorer"] == ["ni_fgsm", True, True]
    assert done["exercise"] == ["passed", "open", "wrong", True]


@pytest.mark.oracle
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_in_the_example_is_noticed(done, name):
    found, part = done["faults"][name], FAULTS[name][3]
    if part in done:
        assert found != done[part]
    else:
        assert found["code"] == 1 and found["failed"], found


def test_the_example_stays_out_of_the_package(root):
    assert not (root / FUNCTION).exists()
    for name in ("spai_lab/attacks/evasion/__init__.py", TAXONOMY, CHAPTER):
        text = (root / name).read_text(encoding="utf-8")
        assert "ni_fgsm" not in text and "look_ahead" not in text


def test_an_edit_whose_place_is_gone_or_doubtful_is_refused():
    assert edited("a\nb\nc\n", " a\n-b\n+B\n") == "a\nB\nc\n"
    for text in ("a\nc\n", "a\nb\na\nb\n"):
        with pytest.raises(ValueError, match="times, not once"):
            edited(text, " a\n-b\n+B\n")


def test_the_function_is_as_short_as_the_rules_ask(blocks):
    [code] = [block.text for block in blocks if block.path == FUNCTION]
    body = code.split('"""\n', 2)[2]
    assert len(body.splitlines()) <= 40
    assert max(map(len, code.splitlines())) <= 120
