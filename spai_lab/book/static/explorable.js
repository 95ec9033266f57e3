// Moves the explorables of a page: each has a picture for every place of its controls, drawn when the page was built.
"use strict";

function bringToLife(figure) {
  const {controls, frames, landings, start} = JSON.parse(figure.querySelector("script").textContent);
  const picture = figure.querySelector("img"), caption = figure.querySelector("figcaption");
  const key = words => JSON.stringify(words);
  const byWords = new Map(frames.map(frame => [key(frame[0]), frame]));
  const landing = new Map(landings.map(([moved, says]) => [key(moved), says]));
  let says = [...frames[start][0]];

  // What the control at this place offers, after those before it; sorted as the explorable has it.
  const offered = place => [...new Set(
    frames.filter(([words]) => words.slice(0, place).every((word, k) => word === says[k])).map(([words]) => words[place])
  )];

  const board = document.createElement("div");
  board.className = "spai-board";
  board.setAttribute("role", "group");
  board.setAttribute("aria-label", figure.getAttribute("aria-label"));
  const parts = controls.map(({label, slides}, place) => {
    const line = document.createElement("label"), name = document.createElement("span");
    const field = document.createElement(slides ? "input" : "select"), shown = document.createElement("output");
    name.textContent = label;
    line.append(name, field);
    if (slides) {
      Object.assign(field, {type: "range", min: 0, step: 1});
      line.className = "spai-slider";
      shown.setAttribute("aria-hidden", "true"); // the slider itself says its value
      line.append(shown);
    }
    field.addEventListener("input", () => moved(place, offered(place)[slides ? field.valueAsNumber : field.selectedIndex]));
    board.append(line);
    return {field, shown, slides};
  });

  function refresh() {
    parts.forEach(({field, shown, slides}, place) => {
      const words = offered(place), at = words.indexOf(says[place]);
      if (slides) {
        field.max = words.length - 1;
        field.value = at;
        field.setAttribute("aria-valuetext", says[place]);
        shown.textContent = says[place];
      } else {
        if (key([...field.options].map(option => option.text)) !== key(words)) {
          field.replaceChildren(...words.map(word => new Option(word)));
        }
        field.selectedIndex = at;
      }
    });
  }

  // A control was moved: those behind it keep what they say, if they still can.
  function moved(place, word) {
    says[place] = word;
    const after = landing.get(key(says.slice(0, place + 1)));
    for (let next = place + 1; next < says.length; next++) {
      const words = offered(next);
      if (!words.includes(says[next])) says[next] = after && words.includes(after[next]) ? after[next] : words[0];
    }
    refresh();
    show();
  }

  const load = frame => Object.assign(new Image(), {src: frame[1]});

  async function show() {
    const frame = byWords.get(key(says)), [, file, alt, text] = frame;
    const next = load(frame);
    await next.decode().catch(() => {});
    if (frame !== byWords.get(key(says))) return; // moved on meanwhile
    Object.assign(picture, {src: file, alt, width: next.naturalWidth || picture.width, height: next.naturalHeight || picture.height});
    caption.textContent = text;
    prefetch();
  }

  function prefetch() {
    says.forEach((word, place) => {
      const words = offered(place), at = words.indexOf(word);
      for (const near of [words[at + 1], words[at - 1]]) {
        const frame = near === undefined ? near : byWords.get(key(says.with(place, near)));
        if (frame) load(frame);
      }
    });
  }

  refresh();
  figure.prepend(board);
  figure.addEventListener("pointerenter", prefetch, {once: true});
  figure.addEventListener("focusin", prefetch, {once: true});
}

document.querySelectorAll("figure.spai-live").forEach(bringToLife);

// What is too wide scrolls in a box of its own; the keyboard must reach that box.
function reachWide() {
  for (const box of document.querySelectorAll(".bd-article :is(.pst-scrollable-table-container, table, .cell_output, mjx-container[display=true])")) {
    if (box.tabIndex >= 0 || box.scrollWidth <= box.clientWidth || getComputedStyle(box).overflowX !== "auto") continue;
    box.tabIndex = 0;
    if (box.tagName === "DIV") {
      box.setAttribute("role", "region");
      box.setAttribute("aria-label", "wider than the page, scrolls");
    }
  }
}

addEventListener("load", reachWide);
addEventListener("resize", reachWide);
