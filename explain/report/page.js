"use strict";
(() => {
  const rows = JSON.parse(document.getElementById("rows").textContent);
  const labels = JSON.parse(document.getElementById("labels").textContent);
  const PAGE = 200; // rows put on the page at once
  const $ = (id) => document.getElementById(id);
  const body = document.querySelector("#utterances tbody");
  let shown = [], limit = PAGE, open = null;

  // All text goes in as text, never as markup.
  const make = (tag, text, attributes = {}) => {
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = text;
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    return element;
  };
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name);
  const confidence = (row) => Math.max(...row.p);
  const strength = (row) => row.strengths?.[row.predicted];
  const ranked = rows.some((row) => row.strengths);
  const wrong = (row) => row.label !== "" && row.label !== row.predicted;

  for (const label of labels) $("label").append(make("option", label, { value: label }));

  function filtered() {
    const words = $("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    const which = $("which").value, label = $("label").value;
    const kept = rows.filter((row) => {
      if (which === "wrong" && !wrong(row)) return false;
      if (which === "right" && (row.label === "" || wrong(row))) return false;
      if (label && row.label !== label) return false;
      const text = [row.id, row.text, row.label, row.predicted, row.speaker].join(" ").toLowerCase();
      return words.every((word) => text.includes(word));
    });
    const orders = {
      high: (a, b) => confidence(b) - confidence(a),
      low: (a, b) => confidence(a) - confidence(b),
      long: (a, b) => b.seconds - a.seconds,
    };
    const order = orders[$("sort").value];
    return order ? kept.sort(order) : kept;
  }

  function render() {
    close();
    shown = filtered();
    body.replaceChildren(...shown.slice(0, limit).map(line));
    $("count").textContent = `${shown.length} of ${rows.length} utterances`;
    $("more").hidden = shown.length <= limit;
  }

  function line(row) {
    const tr = make("tr");
    const button = make("button", row.id, { type: "button", "aria-expanded": "false" });
    button.addEventListener("click", () => toggle(tr, row, button));
    const first = make("td");
    first.append(button);
    tr.append(
      first,
      make("td", row.label || "–"),
      make("td", row.predicted, wrong(row) ? { class: "wrong" } : {}),
      make("td", confidence(row).toFixed(2), { class: "n" }),
      ...(ranked ? [make("td", strength(row)?.toFixed(2) ?? "–", { class: "n" })] : []),
      make("td", row.seconds ? row.seconds.toFixed(2) : "–", { class: "n" }),
      make("td", row.text),
    );
    return tr;
  }

  function close() {
    if (!open) return;
    cancelAnimationFrame(open.frame);
    open.watch?.disconnect();
    open.audio?.pause();
    open.detail.remove();
    open.button.setAttribute("aria-expanded", "false");
    open = null;
  }

  function toggle(tr, row, button) {
    const again = open && open.button === button;
    close();
    if (again) return;
    const detail = make("tr", undefined, { class: "detail" });
    const cell = make("td", undefined, { colspan: ranked ? "7" : "6" });
    detail.append(cell);
    tr.after(detail);
    button.setAttribute("aria-expanded", "true");
    open = { detail, button, frame: 0 };
    const chances = labels.map((label, k) => [label, row.p[k]]).sort((a, b) => b[1] - a[1]);
    cell.append(make("p", chances.map(([label, p]) => `${label} ${p.toFixed(2)}`).join(", ")));
    if (row.evidence) cell.append(make("p", row.evidence));
    if (row.strengths) {
      const strengths = Object.entries(row.strengths).map(([label, own]) => `${label} ${own.toFixed(2)}`);
      cell.append(make("p", `Strength: ${strengths.join(", ")}`));
    }
    if (row.problem) cell.append(make("p", row.problem, { class: "wrong" }));
    if (row.audio) cell.append((open.audio = player(row)));
    if (row.curve) cell.append(...curve(row, open));
    if (row.words) cell.append(words(row));
    if (row.picture) {
      const link = make("a", "the whole picture", { href: row.picture });
      const paragraph = make("p");
      paragraph.append(link);
      cell.append(paragraph);
    }
  }

  function player(row) {
    const audio = make("audio", undefined, { controls: "", preload: "auto" });
    audio.setAttribute("aria-label", `recording of ${row.id}`);
    const stop = row.at + row.seconds;
    audio.src = row.at ? `${row.audio}#t=${row.at},${stop}` : row.audio;
    audio.addEventListener("error", () => {
      audio.replaceWith(make("p", `This browser cannot open the recording (${row.audio.slice(0, 200)}).`));
    });
    return audio;
  }

  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));

  function curve(row, state) {
    const canvas = make("canvas", undefined, {
      tabindex: "0", role: "slider", "aria-label": `${row.method} over time in ${row.id}; arrows seek, space plays`,
      "aria-valuemin": "0", "aria-valuemax": row.seconds.toFixed(2),
    });
    const values = bytes(row.curve);
    const speech = row.speech ? bytes(row.speech) : null;
    const time = () => Math.max((state.audio?.currentTime ?? 0) - row.at, 0);
    const seek = (seconds) => {
      if (!state.audio) return;
      state.audio.currentTime = row.at + Math.min(Math.max(seconds, 0), row.seconds);
      draw();
    };
    function draw() {
      const scale = window.devicePixelRatio || 1;
      const width = canvas.clientWidth, height = canvas.clientHeight, strip = 10, name = 16;
      if (canvas.width !== Math.round(width * scale)) canvas.width = Math.round(width * scale);
      if (canvas.height !== Math.round(height * scale)) canvas.height = Math.round(height * scale);
      const c = canvas.getContext("2d");
      c.setTransform(scale, 0, 0, scale, 0, 0);
      c.clearRect(0, 0, width, height);
      const x = (seconds) => (seconds / row.seconds) * width;
      const at = (k) => x(row.times ? row.times[k] : row.centre + k * row.hop);
      const floor = height - strip - name, step = x(row.hop) + 0.5;
      for (let k = 0; k < values.length; k++) {
        if (speech && speech[k] >= 128) {
          c.fillStyle = colour("--shade");
          c.fillRect(at(k) - step / 2, 0, step, floor);
        }
        c.fillStyle = colour("--curve");
        c.globalAlpha = values[k] / 255;
        c.fillRect(at(k) - step / 2, floor, step, strip);
        c.globalAlpha = 1;
      }
      const even = floor - (floor - 6) / row.top;
      c.strokeStyle = colour("--soft");
      c.setLineDash([4, 4]);
      c.beginPath(); c.moveTo(0, even); c.lineTo(width, even); c.stroke();
      c.setLineDash([]);
      c.strokeStyle = colour("--curve");
      c.lineWidth = 1.6;
      c.beginPath();
      values.forEach((v, k) => c.lineTo(at(k), floor - (v / 255) * (floor - 6)));
      c.stroke();
      c.fillStyle = colour("--ink");
      c.font = "11px system-ui, sans-serif";
      c.textAlign = "center";
      for (const [start, end, word] of row.spoken ?? []) {
        c.fillText(word, x((start + end) / 2), height - 4, Math.max(x(end) - x(start), 8));
      }
      c.strokeStyle = colour("--play");
      c.lineWidth = 2;
      c.beginPath(); c.moveTo(x(time()), 0); c.lineTo(x(time()), floor + strip); c.stroke();
      canvas.setAttribute("aria-valuenow", time().toFixed(2));
      canvas.setAttribute("aria-valuetext", `${time().toFixed(2)} of ${row.seconds.toFixed(2)} seconds`);
    }
    function follow() {
      draw();
      if (state.audio && !state.audio.paused) {
        if (row.at && time() >= row.seconds) state.audio.pause();
        state.frame = requestAnimationFrame(follow);
      }
    }
    for (const event of ["seeked", "pause", "ended", "loadeddata"]) state.audio?.addEventListener(event, draw);
    state.audio?.addEventListener("play", follow);
    canvas.addEventListener("click", (e) => seek((e.offsetX / canvas.clientWidth) * row.seconds));
    canvas.addEventListener("keydown", (e) => {
      const move = e.shiftKey ? 1 : 0.1;
      const to = { ArrowLeft: time() - move, ArrowRight: time() + move, Home: 0, End: row.seconds }[e.key];
      if (to !== undefined) seek(to);
      else if (e.key === " ") state.audio?.paused ? state.audio.play() : state.audio?.pause();
      else return;
      e.preventDefault();
    });
    state.watch = new ResizeObserver(draw);
    state.watch.observe(canvas);
    const key = `Highest ${row.top.toFixed(1)} times an even share of the ${row.method} (dashed). ` +
      (speech ? "Shade: speech. " : "") + "Click or use the arrow keys to seek, space to play.";
    return [canvas, make("p", key)];
  }

  function words(row) {
    const paragraph = make("p", undefined, { class: "words" });
    const most = Math.max(...row.words.map(([, weight]) => weight), 1e-9);
    for (const [word, weight] of row.words) {
      const span = make("span", word, { title: `${weight.toFixed(2)} times an even share` });
      span.style.background = `color-mix(in srgb, var(--play) ${Math.round((60 * weight) / most)}%, transparent)`;
      paragraph.append(span);
    }
    paragraph.append(make("small", ` ${Math.round(100 * row.special)} % of the mass on special tokens`));
    return paragraph;
  }

  for (const id of ["search", "which", "label", "sort"]) {
    $(id).addEventListener(id === "search" ? "input" : "change", () => { limit = PAGE; render(); });
  }
  $("more").addEventListener("click", () => { limit += PAGE; render(); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", render);
  render();
})();
