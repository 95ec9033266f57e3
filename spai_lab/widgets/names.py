"""Names for screen readers: ipywidgets gives none to a slider's handle, to a play button, or to a group of answers."""

import html

NAMED = "spai-named"  # the class of a box whose controls get names

# Runs once the box is on the page, and again whenever something in it is added or its words change.
SCRIPT = """
const box = this.closest(".spai-named");
if (box && !box.dataset.named) {
  box.dataset.named = "yes";
  const set = (element, key, value) => element.getAttribute(key) === value || element.setAttribute(key, value);
  const name = () => {
    for (const line of box.querySelectorAll(".widget-inline-hbox, .widget-radio")) {
      const label = line.querySelector(".widget-label")?.textContent.trim().replace(/:$/, "");
      const readout = line.querySelector(".widget-readout");
      if (!label) continue;
      for (const handle of line.querySelectorAll("[role=slider]")) {
        set(handle, "aria-label", label);
        if (readout) set(handle, "aria-valuetext", readout.textContent);
      }
      if (readout?.isContentEditable) {
        set(readout, "role", "textbox");
        set(readout, "aria-label", label + ", as a number");
      }
      for (const group of line.querySelectorAll(".widget-radio-box")) {
        set(group, "role", "radiogroup");
        set(group, "aria-label", label);
      }
    }
    box.querySelectorAll(".widget-play").forEach(play => ["play or pause", "stop", "repeat"].forEach((does, place) => {
      if (play.querySelectorAll("button")[place]) set(play.querySelectorAll("button")[place], "aria-label", does);
    }));
    // While a list is closed, its arrow keys are the reader's, not JupyterLab's.
    box.querySelectorAll("select").forEach(list => set(list, "data-lm-suppress-shortcuts", "true"));
  };
  name();
  new MutationObserver(name).observe(box, {childList: true, subtree: true});
}
"""

# An animation starts when an element is on the page. A script in a widget does not run, a picture may load too early.
NAMER = (
    "<style>.spai-namer{position:absolute;width:0;height:0;animation:spai-namer 1ms}"
    "@keyframes spai-namer{from{opacity:0.9}}</style>"
    f'<i class="spai-namer" aria-hidden="true" onanimationstart="{html.escape(SCRIPT.strip())}"></i>'
)
