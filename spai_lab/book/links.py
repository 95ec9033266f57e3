"""The links of a built book: internal ones lead to something, others are well-formed, nothing loads from elsewhere."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LINKS = {"href", "src", "poster", "action", "data", "srcset"}
LOADING = {
    ("link", "href"),
    *((tag, "src") for tag in ("img", "script", "iframe", "audio", "video", "source", "embed")),
}
CSS_URL = re.compile(r"url\(\s*(?:'([^']*)'|\"([^\"]*)\"|([^)'\"]*))\s*\)|@import\s+['\"]([^'\"]+)['\"]")
HOST = re.compile(r"[\w-]+(\.[\w-]+)+")


@dataclass(frozen=True)
class Link:
    """A link of a page.

    Args:
        target: where it leads, as the page says it.
        loads: whether a browser fetches it as soon as the page is read.
    """

    target: str
    loads: bool


class Reader(HTMLParser):
    """What a page links to, its anchors, and its pictures."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[Link] = []
        self.anchors: set[str] = set()
        self.pictures: list[dict[str, str | None]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.anchors |= {value for name, value in attrs if value and (name == "id" or (tag, name) == ("a", "name"))}
        if tag == "img":
            self.pictures.append(found)
        self.links += [
            Link(
                value,
                (tag, name) in LOADING
                and not (tag == "link" and found.get("rel") in ("next", "prev", "search", "index")),
            )
            for name, value in attrs
            if name in LINKS and value is not None
        ]


def pages(folder: Path) -> list[Path]:
    """The pages of a built book."""
    return sorted(path for path in Path(folder).rglob("*.html") if "_static" not in path.parts)  # these are templates


def broken_links(folder: Path) -> list[str]:
    """What is wrong with the links of a built book, a sentence for each; no network is used.

    Args:
        folder: with the pages.
    Returns:
        nothing where every internal link leads to a file or an anchor in the folder, every other one is a well-formed
        https address, and whatever a browser loads lies in the folder.
    """
    folder = Path(folder).resolve()
    read = {path: Reader(path.read_text(encoding="utf-8")) for path in pages(folder)}
    anchors = {path: reader.anchors for path, reader in read.items()}
    found = [
        f"{path.relative_to(folder)}: {link.target!r} {wrong}"
        for path, reader in read.items()
        for link in reader.links
        if (wrong := fault(link, path, folder, anchors))
    ]
    for path in sorted(folder.rglob("*.css")):
        found += [
            f"{path.relative_to(folder)}: {target!r} {wrong}"
            for target in css_targets(path.read_text(encoding="utf-8"))
            if (wrong := fault(Link(target, loads=True), path, folder, anchors))
        ]
    return found


def css_targets(text: str) -> Iterator[str]:
    """What a style sheet loads.

    >>> list(css_targets("a {background: url('x.png')} @import 'y.css'; b {src: url(z.woff2)}"))
    ['x.png', 'y.css', 'z.woff2']
    """
    return (next(filter(None, match), "") for match in CSS_URL.findall(text))


def fault(link: Link, path: Path, folder: Path, anchors: dict[Path, set[str]]) -> str:
    """What is wrong with a link of a page, or nothing.

    Args:
        link: the link.
        path: the page.
        folder: the book.
        anchors: of each page.

    >>> fault(Link("http://a.org", loads=False), Path("/b/x.html"), Path("/b"), {})
    'is not a well-formed https address'
    >>> fault(Link("https://a.org/x.js", loads=True), Path("/b/x.html"), Path("/b"), {})
    'is loaded from another host'
    """
    try:
        address = urlsplit(link.target)
    except ValueError:
        return "is no address"
    if address.scheme == "data":
        return ""
    if address.scheme or address.netloc:
        if link.loads:
            return "is loaded from another host"
        well = address.scheme == "https" and HOST.fullmatch(address.hostname or "") and " " not in link.target
        return "" if well else "is not a well-formed https address"
    goal = (path.parent / unquote(address.path)).resolve() if address.path else path
    if not goal.is_relative_to(folder) or not goal.is_file():
        return "leads to no file of the book"
    if address.fragment and goal.suffix == ".html" and unquote(address.fragment) not in anchors[goal]:
        return "leads to no anchor"
    return ""
