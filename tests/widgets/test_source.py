"""The shown source is the source: nothing lost, nothing added, readable without a style sheet."""

import html
import inspect
import re

import pytest

from spai_lab.attacks.evasion import fgsm, pgd
from spai_lab.metrics import Rate
from spai_lab.threat import fooled, project
from spai_lab.widgets.source import show_source


def text_of(page: str) -> str:
    return html.unescape(re.sub(r"<[^>]+>", "", page))


@pytest.mark.parametrize("function", [fgsm, pgd, project, fooled, Rate], ids=lambda function: function.__name__)
def test_the_whole_source_is_shown(function):
    page = re.sub(r"<summary.*?</summary>", "", show_source(function).html)
    place = function.__module__.replace(".", "/") + ".py"
    assert "".join(text_of(page).split()) == "".join((place + inspect.getsource(function)).split())


def test_docstring_is_folded_and_the_mathematics_is_not():
    page = show_source(fgsm).html
    folded = re.search(r"<details.*?</details>", page, flags=re.DOTALL).group()
    assert "Goodfellow" in text_of(folded)
    assert "steepest" not in text_of(folded)
    assert "steepest" in text_of(page.replace(folded, ""))
    assert "Goodfellow" not in text_of(page.replace(folded, ""))


def test_plain_text_keeps_the_first_line_of_the_docstring_and_compiles():
    plain = repr(show_source(fgsm))
    assert plain.startswith("# spai_lab/attacks/evasion/gradient.py\ndef fgsm(")
    assert 'r"""Fast gradient sign method: one step of full length, straight up the loss."""' in plain
    assert "Goodfellow" not in plain
    compile(plain, "shown", "exec")


def test_several_functions_stand_below_each_other():
    shown = show_source(fgsm, project)
    assert shown.html.index("Source of fgsm") < shown.html.index("Source of project")
    assert repr(shown).count("def ") == 2


def test_styles_are_inline_and_colors_have_a_fallback():
    page = show_source(fgsm).html
    assert "<style" not in page
    assert "class=" not in page
    themed = re.findall(
        r"color:(#[0-9a-f]{6});(?:background-|border-)?color:var\(--jp-[a-z0-9-]+,(#[0-9a-f]{6})\)", page
    )
    assert len(themed) == page.count("color:var(") > 10
    assert all(plain == fallback for plain, fallback in themed)
    assert "aria-label" in page


def test_source_from_a_notebook_has_no_place():
    def local(x):
        return x < 1

    assert repr(show_source(local)) == "def local(x):\n    return x < 1"
    assert "&lt;" in show_source(local).html


@pytest.mark.parametrize(
    ("functions", "message"),
    [
        ((), "functions is empty; accepted: one function or more"),
        ((len,), "function is <built-in function len>; accepted: a function written in Python"),
        (("fgsm",), "function is 'fgsm'; accepted: a function written in Python"),
        ((lambda x: x,), "accepted: a function"),
    ],
)
def test_bad_input_is_named(functions, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        show_source(*functions)
