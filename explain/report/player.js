"use strict";
/* The list of utterances, of which only those in sight are on the page; filters; and the one or two
   that are open beside it. */

(() => {
  const $ = (id) => document.getElementById(id);
  const { rows, labels, caution } = JSON.parse($("player-data").textContent);
  const HEIGHT = 52, AROUND = 6;
  const list = $("list");
  const confidence = (row) => Math.max(...row.p);
  const wrong = (row) => row.label !== "" && row.label !== row.predicted;
  let shown = rows, chosen = null, kept = null, clip = null;

  const texts = rows.map((row) => [row.id, row.text, row.label, row.predicted, row.speaker].join(" ").toLowerCase());
  rows.forEach((row, k) => (row.place = k));
  const option = (value) => make("option", { value }, value);
  $("label").append(...labels.map(option));
  $("predicted").append(...labels.map(option));
  const speakers = [...new Set(rows.map((row) => row.speaker).filter(Boolean))].sort();
  $("speaker").append(...speakers.map(option));
  $("speaker").parentElement.hidden = speakers.length < 2;

  function filter() {
    const words = $("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    const [which, label, predicted, speaker, range, sort] =
      ["which", "label", "predicted", "speaker", "confidence", "sort"].map((id) => $(id).value);
    const [low, high] = range ? range.split(" ").map(Number) : [0, 2];
    shown = rows.filter((row) =>
      (!which || (row.label !== "" && wrong(row) === (which === "wrong"))) &&
      (!label || row.label === label) && (!predicted || row.predicted === predicted) &&
      (!speaker || row.speaker === speaker) && confidence(row) >= low && confidence(row) < high &&
      words.every((word) => texts[row.place].includes(word)));
    const orders = {
      high: (a, b) => confidence(b) - confidence(a),
      low: (a, b) => confidence(a) - confidence(b),
      long: (a, b) => b.seconds - a.seconds,
    };
    if (orders[sort]) shown.sort(orders[sort]);
    $("count").textContent = `${shown.length.toLocaleString("en")} of ${rows.length.toLocaleString("en")} utterances`;
    $("reset").hidden = shown.length === rows.length;
    list.scrollTop = 0;
    render();
    // What is open beside the list is in it.
    if (chosen && shown.length && !shown.includes(chosen)) choose(shown[0]);
  }

  function render() {
    const first = Math.max(Math.floor(list.scrollTop / HEIGHT) - AROUND, 0);
    const end = Math.min(first + Math.ceil(list.clientHeight / HEIGHT) + 2 * AROUND, shown.length);
    const space = make("div", { role: "presentation" });
    space.style.height = `${shown.length * HEIGHT}px`;
    list.replaceChildren(...(shown.length ? [] : [make("div", { class: "nothing", role: "option", "aria-selected": "false" }, "No utterance fits.")]),
      space, ...shown.slice(first, end).map((row, k) => line(row, first + k)));
    const at = shown.indexOf(chosen);
    if (at >= first && at < end) list.setAttribute("aria-activedescendant", `row-${chosen.place}`);
    else list.removeAttribute("aria-activedescendant");
  }

  function line(row, place) {
    const heard = wrong(row) ? `${row.label} → ${row.predicted} ✗` : row.predicted;
    const one = make("div", {
      class: row === kept?.row ? "row kept" : "row", role: "option", id: `row-${row.place}`, "aria-selected": String(row === chosen),
      "aria-setsize": shown.length, "aria-posinset": place + 1, click: () => { choose(row); reveal(); },
    },
      make("b", {}, row.id), make("span", { class: wrong(row) ? "p wrong" : "p" }, heard),
      make("span", { class: "said" }, row.text || row.speaker || ""),
      make("span", { class: "said p" }, confidence(row).toFixed(2), row.seconds ? ` · ${row.seconds.toFixed(1)} s` : ""));
    one.style.top = `${place * HEIGHT}px`;
    return one;
  }

  function choose(row) {
    if (!row) return;
    chosen = row;
    const top = shown.indexOf(row) * HEIGHT;
    if (top >= 0 && top < list.scrollTop) list.scrollTop = top;
    else if (top + HEIGHT > list.scrollTop + list.clientHeight) list.scrollTop = top + HEIGHT - list.clientHeight;
    render();
    if (kept?.row === row) return;
    clip?.close();
    const keep = make("button", { type: "button", "aria-pressed": String(kept !== null), click: compare }, kept ? "Stop comparing" : "Compare");
    clip = Clip.open(row, { labels, caution, tools: [keep], together: opened });
    quiet(clip);
    $("clips").append(clip.element);
    clip.draw();
    share();
  }

  // On a narrow page it opens below what is seen.
  function reveal() {
    if (clip && clip.element.getBoundingClientRect().top > 0.8 * innerHeight) clip.element.scrollIntoView();
  }

  const opened = () => [kept, clip].filter(Boolean);

  // Two that are compared stand on one scale, and beside one another where there is room.
  function share() {
    const scales = Clip.common(opened().map((one) => one.row), labels), two = kept !== null;
    $("player").classList.toggle("two", two);
    $("shared").textContent = two
      ? `Both on one scale: ${scales.seconds.toFixed(2)} s across, full colour and height at ${scales.full.toFixed(1)} × an even share.`
      : "";
    for (const one of opened()) one.share(scales);
  }

  // One plays at a time.
  const quiet = (own) => own.audio.addEventListener("play", () => {
    for (const other of opened()) if (other !== own) other.audio.pause();
  });

  // The open one stays where it is, and the next one opens beside it; or the one that stays leaves.
  function compare() {
    if (kept) {
      kept.close();
      kept = null;
      const button = clip.element.querySelector("[aria-pressed]");
      if (button) {
        button.textContent = "Compare";
        button.setAttribute("aria-pressed", "false");
      }
      render();
      share();
      return;
    }
    kept = clip;
    clip = null;
    const button = kept.element.querySelector("[aria-pressed]");
    button.setAttribute("aria-pressed", "true");
    button.textContent = "Stop comparing";
    const at = shown.indexOf(chosen);
    choose(shown[at + 1] ?? shown[at - 1]);
  }

  list.addEventListener("keydown", (e) => {
    const at = shown.indexOf(chosen), page = Math.floor(list.clientHeight / HEIGHT);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, PageDown: at + page, PageUp: at - page, Home: 0, End: shown.length - 1 }[e.key];
    if (to !== undefined) choose(shown[Math.min(Math.max(to, 0), shown.length - 1)]);
    else if (e.key === "Enter") clip?.toggle();
    else return;
    e.preventDefault();
  });
  // Anywhere but where text is typed or a control has its own keys.
  document.addEventListener("keydown", (e) => {
    if (e.ctrlKey || e.metaKey || e.altKey || e.target.closest("input, select, button, summary, a")) return;
    if (e.key === "/") $("search").focus();
    else if (e.key === "c") compare();
    else if (clip && (e.target === list || e.target === document.body)) return clip.press(e);
    else return;
    e.preventDefault();
  });
  list.addEventListener("scroll", () => requestAnimationFrame(render), { passive: true });
  $("filters").addEventListener("input", filter);
  $("filters").addEventListener("submit", (e) => e.preventDefault());
  $("reset").addEventListener("click", () => { $("filters").reset(); filter(); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => opened().forEach((one) => one.recolour()));
  // On paper nothing scrolls.
  addEventListener("beforeprint", () => opened().forEach((one) => one.zoom(0)));
  filter();
  choose(shown[0]);
})();
