"""Build the book: Sphinx and MyST-NB, execution off, everything beside the pages and nothing from a network."""

import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from tqdm.auto import tqdm

from spai_lab.book import album, live, pages
from spai_lab.book.frames import MOST_FRAMES
from spai_lab.book.links import broken_links
from spai_lab.checks import check_count
from spai_lab.workbook import Chapter, chapter_of, chapters, notebooks_folder, read, to_bytes

MARK = "spai-book.json"  # tells a book from a folder that nobody may overwrite
MATHJAX = "sphinx-mathjax-offline"  # the package that brings MathJax; of it we take one file
MATHJAX_FILE = "tex-svg.js"
REMEDY = "`python3 run.py book` brings what the book needs, or `pip install -e '.[book]'`"
TITLE = "SPAI Lab"
NO_HEADER = "{# The theme has buttons above each article; a second set in a bar above them would take their clicks. #}"
SETTINGS = {
    "project": TITLE,
    "html_title": TITLE,
    "author": "",
    "copyright": "",
    "language": "en",
    "extensions": ["myst_nb", "sphinx.ext.mathjax"],
    "nb_execution_mode": "off",
    "nb_render_markdown_format": "myst",
    "nb_code_prompt_show": "Show the imports",
    "nb_code_prompt_hide": "Hide the imports",
    "myst_enable_extensions": ["dollarmath"],
    "myst_dmath_double_inline": True,
    "mathjax_path": f"mathjax/{MATHJAX_FILE}",
    "nitpicky": True,
    "html_theme": "sphinx_book_theme",
    "templates_path": ["_templates"],
    "html_static_path": ["_extra"],
    "html_extra_path": ["_beside"],
    "exclude_patterns": ["_beside", "_extra", "_templates", "_doctrees"],
    "html_css_files": ["book.css"],
    "html_js_files": [("explorable.js", {"defer": "defer"})],
    "html_copy_source": False,
    "html_show_sourcelink": False,
    "html_show_sphinx": False,
    "html_show_copyright": False,
    "html_show_search_summary": False,  # the browser would have to read other pages, which a plain file may not
    "html_use_index": False,
    "html_context": {"default_mode": "light"},
}
THEME = {
    "use_download_button": False,
    "use_fullscreen_button": False,
    "home_page_in_toc": True,
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "back_to_top_button": False,
    "logo": {"text": TITLE},
}


@dataclass(frozen=True)
class Book:
    """A built book: where it is, how many pages, explorables' frames and bytes it has, and what took how long."""

    folder: Path
    pages: int
    frames: int
    size: int
    seconds: float
    drawing_seconds: float
    explorables: tuple[album.Drawn, ...]

    def __str__(self) -> str:
        alive = sum(each.frames is not None for each in self.explorables)
        return (
            f"{self.folder / 'index.html'}: {self.pages} pages, {alive} of {len(self.explorables)} explorables alive "
            f"in {self.frames:,} frames, {self.size / 1e6:.0f} MB; {self.seconds:.0f} s, {self.drawing_seconds:.0f} of "
            "them for the frames."
        )


def build(
    out: Path,
    only: Sequence[str] = (),
    *,
    masters: Path | None = None,
    kept: Path | None = None,
    most: int = MOST_FRAMES,
) -> Book:
    """Build the book, whole or not at all; a book that was there is replaced once the new one is finished.

    Args:
        out: the book's folder; made where it is missing, replaced where it holds a book.
        only: beginnings of chapters' names, such as "02"; all if left out.
        masters: the folder of the chapters; the repository's if left out.
        kept: where frames are kept from one build to the next; beside `out` if left out.
        most: how many frames an explorable may have; with 0 each stays as it was stored.
    Returns:
        what was built.
    Raises:
        ValueError: an argument is not usable; names it.
        RuntimeError: a package is missing, the builder warned, or a link is broken.
        OSError: no space or no permission.
    """
    began = time.monotonic()
    check_count("most", most, low=0)
    mathjax_file()  # before minutes are spent
    out, chosen = Path(out).resolve(), choose(Path(masters or notebooks_folder()), only)
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / MARK).exists())):
        raise ValueError(
            f"out is {out}, which holds something else; accepted: a new folder, an empty one, or an older book"
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    notebooks = {path.stem: read(path) for path in chosen}
    dataset = dataset_here()
    place = album.album(kept or out.with_name(f"{out.name}-frames"), dataset, most)
    explorables = draw_all(notebooks, dataset, place, most)
    drawing = time.monotonic() - began
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as folder:
        sources, new = Path(folder, "sources"), Path(folder, "book")
        lay_out(sources, chosen, notebooks, explorables, place, dataset)
        run_sphinx(sources, new, dataset)
        if broken := broken_links(new):
            raise RuntimeError("\n".join(["links are broken:", *broken]))
        facts = {"chapters": list(notebooks), "dataset": dataset}
        (new / MARK).write_text(json.dumps(facts, indent=1), encoding="utf-8")
        replace(out, new, Path(folder, "old"))
    files = [path for path in out.rglob("*") if path.is_file()]
    return Book(
        folder=out,
        pages=len(notebooks) + 1,
        frames=sum(len(each.frames.frames) for each in explorables.values() if each.frames),
        size=sum(path.stat().st_size for path in files),
        seconds=time.monotonic() - began,
        drawing_seconds=drawing,
        explorables=tuple(explorables.values()),
    )


def choose(masters: Path, only: Sequence[str]) -> list[Path]:
    """The chapters of an edition, in their order."""
    there = chapters(masters)
    chosen = [path for path in there if path.stem.startswith(tuple(only) or "")]
    if not chosen:
        wanted = f"begins with {' or '.join(only)}" if only else "is there"
        raise ValueError(
            f"no chapter {wanted} in {masters}; there are {', '.join(path.stem for path in there) or 'none'}"
        )
    return chosen


def dataset_here() -> str:
    """The data set that the chapters' `load()` finds on this machine."""
    from spai_lab.data import load

    return load().name


def draw_all(notebooks: Mapping[str, Mapping], dataset: str, place: Path, most: int) -> dict[str, album.Drawn]:
    """The explorables of all chapters by their calls, drawn where they are not kept; shows how far it is."""
    cells = (cell for notebook in notebooks.values() for cell in notebook["cells"] if cell["cell_type"] == "code")
    calls = dict.fromkeys(filter(None, (album.explorable_call("".join(cell["source"])) for cell in cells)))
    bar = tqdm(calls, desc="explorables", unit="", leave=False)
    drawn = {}
    for call in bar:
        bar.set_postfix_str(call.partition("(")[0])
        drawn[call] = album.drawn(call, dataset, place, most)
    return drawn


def lay_out(
    sources: Path,
    chosen: Sequence[Path],
    notebooks: Mapping[str, Mapping],
    explorables: Mapping[str, album.Drawn],
    place: Path,
    dataset: str,
) -> None:
    """Write what Sphinx reads: a source for each page, the landing page, and the files that lie beside the pages."""
    beside = sources / "_beside"
    inside = (sources / "_extra" / "mathjax", sources / "_templates" / "sections")
    for folder in (beside / pages.FOLDER, beside / live.FOLDER, *inside):
        folder.mkdir(parents=True)
    shown = {
        call: live.live_html(each.frames, call.partition("(")[0].replace("_", " "))
        for call, each in explorables.items()
        if each.frames
    }
    shown[pages.MAP_CALL] = map_html(set(notebooks))
    notes = {call: live.still_html(each.still) for call, each in explorables.items() if not each.frames}
    for name, notebook in notebooks.items():
        source = pages.source_of(notebook, set(notebooks), shown, notes)
        (sources / f"{name}.ipynb").write_bytes(to_bytes(source.notebook))
        for file, content in source.pictures.items():
            (beside / pages.FOLDER / file).write_bytes(content)
    for file in {frame.file for each in explorables.values() if each.frames for frame in each.frames.frames}:
        shutil.copyfile(place / file, beside / live.FOLDER / file)
    (sources / "index.md").write_text(landing([chapter_of(path) for path in chosen], dataset), encoding="utf-8")
    for file in ("book.css", "explorable.js"):
        (sources / "_extra" / file).write_bytes((resources.files("spai_lab.book") / "static" / file).read_bytes())
    (sources / "_templates" / "sections" / "header.html").write_text(NO_HEADER, encoding="utf-8")
    shutil.copyfile(mathjax_file(), sources / "_extra" / "mathjax" / MATHJAX_FILE)


def map_html(there: set[str]) -> str:
    """The survey's map, linked to the chapters of this edition."""
    from spai_lab.survey import map as survey

    return survey.map_html(survey.load_taxonomy(), frozenset(there))


def mathjax_file() -> Path:
    """MathJax, which typesets formulas as drawings and needs no fonts and no second file.

    Raises:
        RuntimeError: it is not installed, or another package that the book needs.
    """
    packages = {name: importlib.util.find_spec(name) for name in ("sphinx", "myst_nb", "sphinx_book_theme", MATHJAX)}
    for name, package in packages.items():
        if package is None or package.origin is None:
            raise RuntimeError(f"{name} is not installed; {REMEDY}")
    return Path(packages[MATHJAX].origin).parent / "static" / "mathjax" / MATHJAX_FILE


def landing(found: Sequence[Chapter], dataset: str) -> str:
    """The first page, as Markdown."""
    text = (resources.files("spai_lab.book") / "static" / "landing.md").read_text(encoding="utf-8")
    rows = "\n".join(f"| [{each.title}]({each.name}.ipynb) | {each.question} | {each.minutes} |" for each in found)
    return (
        text.replace("{{chapters}}", rows)
        .replace("{{first}}", found[0].name)
        .replace("{{drawn}}", made_on(dataset))
        .replace("{{toctree}}", "\n".join(each.name for each in found))
    )


def made_on(dataset: str) -> str:
    """Which data the pages rest on."""
    drawn = "explorables too" if dataset == "mnist" else f"explorables drawn from {dataset}"
    return f"Chapters executed on MNIST, {drawn}."


def run_sphinx(sources: Path, out: Path, dataset: str) -> None:
    """Build the pages, in a process of their own, since a second Sphinx in one process warns of the first.

    Raises:
        RuntimeError: Sphinx warned.
    """
    settings = {**SETTINGS, "html_theme_options": {**THEME, "extra_footer": f"<p>{made_on(dataset)}</p>"}}
    lines = "".join(f"{name} = {value!r}\n" for name, value in settings.items())
    (sources / "conf.py").write_text(lines, encoding="utf-8")
    command = [sys.executable, "-X", "utf8", "-m", "sphinx", "--builder", "html", "--fail-on-warning", "--quiet"]
    command += ["--no-color", "--doctree-dir", str(sources / "_doctrees"), str(sources), str(out)]
    answer = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8")
    if answer.returncode:
        raise RuntimeError(f"Sphinx does not build the pages:\n{answer.stdout}")


def replace(out: Path, new: Path, old: Path) -> None:
    """Put a finished book where it belongs; an older one goes."""
    if out.exists():
        out.rename(old)
    new.rename(out)
