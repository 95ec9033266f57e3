"""An explorable as HTML: the picture as it opens, and what `explorable.js` needs to move it."""

import html
import json
from collections.abc import Sequence

from spai_lab.book.frames import Frames

FOLDER = "frames"  # beside the pages
IN_THE_LAB = "in the lab (<code>python3 run.py lab</code>)"


def live_html(frames: Frames, title: str) -> str:
    """An explorable that its script moves; without scripts, the picture as it opens, its caption, and a note.

    Args:
        frames: what was drawn; the pictures lie in `frames/` beside the page.
        title: the explorable's name, for those who cannot see where its controls begin.
    Returns:
        one `<figure>`.
    """
    frame = frames.frames[frames.start]
    width, height = frames.size
    picture = (
        f'<img src="{FOLDER}/{frame.file}" alt="{html.escape(frame.alt)}" width="{width}" height="{height}" '
        'decoding="async">'
    )
    return (
        f'<figure class="spai-live" aria-label="{html.escape(title)}">{picture}'
        f'<figcaption aria-live="polite">{html.escape(frame.caption)}</figcaption>'
        f'<p class="spai-note">{note(frames)}</p>'
        f'<script type="application/json">{data(frames)}</script></figure>'
    )


def data(frames: Frames) -> str:
    """What the script needs, as JSON that cannot end the element around it."""
    content = {
        "controls": [{"label": control.label, "slides": control.slides} for control in frames.live],
        "frames": [[list(f.says), f"{FOLDER}/{f.file}", f.alt, f.caption] for f in frames.frames],
        "landings": frames.landings,
        "start": frames.start,
    }
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def note(frames: Frames) -> str:
    """What this edition holds still or shows in part, and where it can be moved.

    >>> from spai_lab.book.frames import Control
    >>> eps = Control("eps", "eps", True, "0.1", 17, 17)
    >>> note(Frames((eps,), (Control("model", "model", False, "LeNet", 4, 1),), (), (), 0, (9, 9)))
    'Fixed here: model LeNet. All of it moves in the lab (<code>python3 run.py lab</code>).'
    """
    parts = []
    if frames.fixed:
        parts.append(f"Fixed here: {listed([f'{control.label} {control.said}' for control in frames.fixed])}.")
    if thin := [control for control in frames.live if control.kept < control.offered]:
        few = listed([f"{control.kept} of {control.offered} places of {control.label}" for control in thin])
        parts.append(f"This page holds {few}.")
    if parts:
        parts.append(f"All of it moves {IN_THE_LAB}.")
    return " ".join(parts)


def listed(words: Sequence[str]) -> str:
    """Words as a list in a sentence, escaped.

    >>> listed(["a"]), listed(["a", "b", "c & d"])
    ('a', 'a, b, c &amp; d')
    """
    return ", ".join(html.escape(word, quote=False) for word in words)


def still_html(why: str) -> str:
    """The sentence under an explorable that stays as it was stored.

    >>> still_html("It is slow.")
    '<p class="spai-note">It is slow. It moves in the lab (<code>python3 run.py lab</code>).</p>'
    """
    return f'<p class="spai-note">{html.escape(why, quote=False)} It moves {IN_THE_LAB}.</p>'
