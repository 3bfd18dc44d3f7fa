"use strict";
/* One utterance: waveform coloured by attention, its curve, words and phones under it, all on one
   time axis that plays, seeks and zooms together. Everything in the waveform is placed in shares of
   its length, so that zooming draws nothing anew but the axis. Two that are compared share a scale:
   as many pixels a second, as much attention for a colour and a height. */

const Clip = (() => {
  const ZOOM = 1.6, MOST_ZOOM = 2000; // pixels a second
  const HEIGHTS = { wave: 84, curve: 56, words: 26, phones: 20, axis: 20 };
  const NEAREST = 0.02, BORDERS = 2;
  const STEPS = [0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300]; // seconds between ticks
  const ROOM = 32; // pixels in which a cut word is still read
  const TICK = 44, MOST_TICKS = 400; // pixels between them at least, and their number at most
  const MOST_CHANCES = 10;
  // Paper has another width than the window that the waveform was drawn for.
  const ON_PAPER = "@media print { .canvases canvas { width: 100% !important; } .progress, .cursor { display: none !important; } }";

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const percent = (share) => `${(100 * share).toFixed(3)}%`;
  const styled = (css, ...children) => {
    const element = make("div", {}, ...children);
    element.style.cssText = css;
    return element;
  };
  function drawn(tag, attributes, ...children) {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  }

  /* What utterances that are open together have in common: seconds across, the attention in even
     shares that is coloured fully (their highest, unless it is less than two), and the labels in
     the order of their probabilities. */
  function common(rows, labels) {
    const most = new Map(labels.map((label, k) => [label, Math.max(...rows.map((row) => row.p[k]))]));
    return {
      seconds: Math.max(...rows.map((row) => row.seconds || 0)),
      full: Math.max(2, ...rows.map((row) => (row.curve ? row.top : 0))),
      order: [...labels].sort((a, b) => most.get(b) - most.get(a)),
    };
  }

  // Attention at any second, in even shares, and how strongly it is coloured: an even share or less
  // not at all, `full` fully.
  function attention(row) {
    if (!row.curve) return null;
    const values = bytes(row.curve);
    const times = row.times ?? Array.from(values, (_, k) => row.centre + k * row.hop);
    const shares = Array.from(values, (v) => (v / 255) * row.top);
    const at = (seconds) => {
      let low = 0, high = times.length - 1;
      while (low < high) {
        const middle = (low + high) >> 1;
        if (times[middle] + row.hop / 2 < seconds) low = middle + 1;
        else high = middle;
      }
      return shares[low];
    };
    const mean = (start, end) => {
      const inside = shares.filter((_, k) => times[k] >= start && times[k] < end);
      return inside.length ? inside.reduce((a, b) => a + b) / inside.length : at((start + end) / 2);
    };
    const highest = times[shares.indexOf(Math.max(...shares))];
    const found = { times, shares, at, mean, highest, full: 2 };
    found.heat = (share) => Math.min(Math.max((share - 1) / (found.full - 1), 0), 1);
    return found;
  }

  // The word that is said then, in quotes; words are start and end in milliseconds, label, start, …
  function spoken(row, seconds) {
    const tier = row.spoken_words ?? [], at = 1000 * seconds;
    const k = tier.findIndex((start, k) => k % 3 === 0 && start <= at && at < tier[k + 1]);
    return k < 0 ? "" : ` (“${tier[k + 2]}”)`;
  }

  function heatStrip(row, found) {
    const canvas = make("canvas", { width: Math.min(Math.max(2 * found.shares.length, 300), 4000), height: 1 });
    canvas.style.cssText = "position:absolute;inset:0;width:100%;height:100%";
    const c = canvas.getContext("2d");
    const paint = () => {
      c.globalAlpha = 1;
      c.fillStyle = colour("--cold");
      c.fillRect(0, 0, canvas.width, 1);
      c.fillStyle = colour("--hot");
      for (let x = 0; x < canvas.width; x++) {
        c.globalAlpha = found.heat(found.at(((x + 0.5) / canvas.width) * row.seconds));
        c.fillRect(x, 0, 1, 1);
      }
    };
    return [canvas, paint];
  }

  function curve(row, found) {
    const y = (share) => (1 - 0.94 * Math.min(share / found.full, 1)).toFixed(4);
    const points = found.shares.map((share, k) => `${found.times[k].toFixed(3)},${y(share)}`);
    const last = found.times.at(-1).toFixed(3), first = found.times[0].toFixed(3);
    const thin = { "vector-effect": "non-scaling-stroke", fill: "none" };
    const svg = drawn(
      "svg", { viewBox: `0 0 ${row.seconds} 1`, preserveAspectRatio: "none", "aria-hidden": "true" },
      drawn("path", { d: `M${first},1L${points.join("L")}L${last},1Z`, style: "fill:var(--hot);opacity:.16" }),
      drawn("path", { d: `M0,${y(1)}H${row.seconds}`, ...thin, style: "stroke:var(--soft);stroke-width:1.2;stroke-dasharray:5 4" }),
      drawn("path", { d: `M${points.join("L")}`, ...thin, style: "stroke:var(--hot);stroke-width:1.8" }),
    );
    if (row.speech) {
      const d = row.speech.map(([start, end]) => `M${start},.985H${end}`).join("");
      svg.append(drawn("path", { d, ...thin, style: "stroke:var(--speech);stroke-width:3" }));
    }
    svg.style.cssText = `display:block;width:100%;height:${HEIGHTS.curve}px;pointer-events:none`;
    return svg;
  }

  function tier(row, name, found, seek) {
    const parts = row[`spoken_${name}`], spans = [], size = name === "words" ? "13px" : "11px";
    const pen = make("canvas").getContext("2d");
    pen.font = `${size} ${getComputedStyle(document.body).fontFamily}`;
    for (let k = 0; k < parts.length; k += 3) {
      const [start, end, text] = [parts[k] / 1000, parts[k + 1] / 1000, parts[k + 2]];
      const span = styled(
        `position:absolute;top:1px;bottom:1px;left:${percent(start / row.seconds)};width:${percent((end - start) / row.seconds)};` +
          "border-right:1px solid var(--wave);box-sizing:border-box;overflow:hidden;text-align:center;white-space:nowrap;text-overflow:ellipsis;border-radius:2px;cursor:pointer",
      );
      span.title = `${text}, ${start.toFixed(2)} to ${end.toFixed(2)} s` + (found ? `: ${found.mean(start, end).toFixed(2)} × an even share` : "");
      span.addEventListener("click", (e) => { e.stopPropagation(); seek(start); });
      spans.push({ start, end, span, text, needs: pen.measureText(text).width + 2 });
    }
    const element = styled(
      `position:relative;height:${HEIGHTS[name]}px;font-size:${size};line-height:${HEIGHTS[name] - 2}px;color:var(--ink)`,
      ...spans.map((one) => one.span),
    );
    const paint = () => {
      for (const { start, end, span } of spans) {
        const heat = found ? found.heat(found.mean(start, end)) : 0;
        span.style.background = `color-mix(in srgb, var(--hot) ${Math.round(55 * heat)}%, var(--ground))`;
      }
    };
    // What there is no room for is not written; of a long word its beginning is.
    const label = (pixels) => {
      for (const { start, end, span, text, needs } of spans) {
        span.textContent = (end - start) * pixels >= Math.min(needs, ROOM) ? text : "";
      }
    };
    return { element, spans, paint, label };
  }

  function ticks(row, pixels) {
    const step = STEPS.find((own) => own * pixels >= TICK && row.seconds / own <= MOST_TICKS) ?? 600;
    return Array.from({ length: Math.max(Math.ceil((row.seconds - TICK / 2 / pixels) / step), 1) }, (_, k) => styled(
      `position:absolute;left:${percent((k * step) / row.seconds)};height:100%;border-left:1px solid var(--line);padding-left:3px`,
      `${+(k * step).toFixed(2)}${k ? "" : " s"}`,
    ));
  }

  // A recording that is a part of a longer file: its own clock, and an end.
  function sound(row) {
    const audio = new Audio();
    audio.preload = "auto";
    const clock = Object.getOwnPropertyDescriptor(HTMLMediaElement.prototype, "currentTime");
    Object.defineProperty(audio, "duration", { get: () => row.seconds });
    if (row.at) {
      Object.defineProperty(audio, "currentTime", {
        get: () => Math.max(clock.get.call(audio) - row.at, 0),
        set: (seconds) => clock.set.call(audio, seconds + row.at),
      });
      audio.addEventListener("timeupdate", () => audio.currentTime >= row.seconds && audio.pause());
    }
    return audio;
  }

  function legend(row, found, caution) {
    const key = (kind) => make("i", kind ? { class: kind } : {});
    const parts = found
      ? [key(), `${row.method}, highest at ${found.highest.toFixed(2)} s${spoken(row, found.highest)}: ${row.top.toFixed(1)} × an even share (`, key("even"), ")",
         ...(row.speech ? ["; ", key("speech"), "speech"] : []),
         ...(row.stretches ? ["; ", key("box"), "what the sentence is about"] : []), ". ", caution]
      : ["No frames of this utterance have times, so nothing is shown over time."];
    return make("p", { class: "legend" }, ...parts);
  }

  function chances(row, labels, order) {
    return make("ul", { class: "chances", "aria-label": "Probabilities" }, ...order.slice(0, MOST_CHANCES).map((label) => {
      const p = row.p[labels.indexOf(label)];
      const bar = make("b");
      bar.style.width = percent(p);
      const own = row.strengths?.[label];
      const title = own === undefined ? label : `${label}, strength ${own.toFixed(2)}`;
      return make("li", { class: label === row.label && "gold", title }, make("span", {}, label),
        make("span", { class: "bar", "aria-hidden": "true" }, bar), make("span", { class: "p" }, p.toFixed(2)));
    }));
  }

  function read(row) {
    const most = Math.max(...row.words.map(([, weight]) => weight), 1e-9);
    return make("p", { class: "words" }, ...row.words.map(([word, weight]) => {
      const span = make("span", { title: `${weight.toFixed(2)} × an even share` }, word);
      span.style.background = `color-mix(in srgb, var(--hot) ${Math.round((60 * weight) / most)}%, transparent)`;
      return span;
    }), make("small", {}, ` The text, by the weight of its words; ${Math.round(100 * row.special)} % is on special tokens.`));
  }

  /* An utterance as an element, with what to do with it. `tools` are further buttons; `together`
     gives what is open, itself included, which zooms as one. */
  function open(row, { labels, caution, tools, together }) {
    const found = row.seconds ? attention(row) : null;
    const wrong = row.label !== "" && row.label !== row.predicted;
    const sure = Math.max(...row.p), strength = row.strengths?.[row.predicted];
    const facts = [
      row.label ? `labelled ${row.label}` : "no label", row.speaker && `speaker ${row.speaker}`,
      row.seconds && `${row.seconds.toFixed(2)} s`, strength !== undefined && `strength ${strength.toFixed(2)}: stronger than ${Math.round(100 * strength)} % of the clips of ${row.predicted} in training`,
    ];
    const audio = sound(row);
    const play = make("button", { type: "button", class: "play", click: () => toggle() }, "▶ Play");
    const clock = make("output", { "aria-live": "off" });
    const slider = make("div", {
      class: "wave", tabindex: "0", role: "slider", "aria-label": `Position in ${row.id}`,
      "aria-valuemin": "0", "aria-valuemax": row.seconds.toFixed(2), keydown: (e) => press(e),
    });
    const zoomed = (factor) => () => zoomBy(factor);
    const problem = make("p", { class: "problem", role: "status" }, row.problem);
    let shared = common([row], labels), odds = chances(row, labels, shared.order);
    const element = make("article", { class: "clip", "aria-label": `Utterance ${row.id}` },
      make("h3", {}, `${row.id}: heard as `, make("span", { class: wrong && "wrong" }, row.predicted), ` (${sure.toFixed(2)})${wrong ? " ✗" : ""}`),
      make("p", { class: "about" }, [...facts.filter(Boolean)].join(" · "), row.text && ` · “${row.text}”`),
      slider,
      make("div", { class: "tools" }, play, clock,
        make("button", { type: "button", "aria-label": "Zoom out", click: zoomed(1 / ZOOM) }, "−"),
        make("button", { type: "button", "aria-label": "Zoom in", click: zoomed(ZOOM) }, "+"), ...tools),
      legend(row, found, caution), problem,
      row.evidence && make("p", { class: row.stretches ? "sentence" : "sentence none" }, row.evidence),
      odds, row.words && read(row),
      row.picture && make("p", { class: "picture" }, make("a", { href: row.picture }, "The whole picture, with spectrogram and saliency")),
    );

    let surfer = null, scale = 0, tiers = [], here = 0, paintStrip = () => {};
    const curveBox = make("div"), axis = styled(`position:relative;height:${HEIGHTS.axis}px;font-size:11px;line-height:${HEIGHTS.axis}px;color:var(--soft)`);
    function toggle() {
      if (!audio.paused) return audio.pause();
      if (row.at) audio.currentTime = here < row.seconds - NEAREST ? here : 0;
      audio.play().catch(() => {});
    }
    // The element's own clock: wavesurfer's forgets seeks that follow one another at once.
    function seek(seconds) {
      audio.currentTime = Math.min(Math.max(seconds, 0), row.seconds);
      surfer?.getRenderer().renderProgress(audio.currentTime / row.seconds, !audio.paused);
      tell(audio.currentTime);
    }
    // Pixels a second at which all that is open fits.
    const fit = () => (element.querySelector(".tools").clientWidth - BORDERS) / shared.seconds;
    function zoomBy(factor) {
      const to = Math.min((scale || fit()) * factor, MOST_ZOOM);
      for (const one of together()) one.zoom(to > fit() * 1.01 ? to : 0);
    }
    // To so many pixels a second; 0: as many as fit, also once the window is another.
    function zoom(to) {
      if (!surfer) return;
      scale = to;
      slider.style.width = to
        ? `min(100%, ${to * row.seconds + BORDERS}px)`
        : `calc((100% - ${BORDERS}px) * ${row.seconds / shared.seconds} + ${BORDERS}px)`;
      if (surfer.getDecodedData()) surfer.zoom(to); // it takes no zoom before that
      if (to) surfer.setScrollTime(here - slider.clientWidth / to / 2);
    }
    function press(e) {
      const words = tiers[0]?.spans;
      const later = words?.find((w) => w.start > here + NEAREST)?.start ?? row.seconds;
      const sooner = words?.findLast((w) => w.start < here - NEAREST)?.start ?? 0;
      const step = e.shiftKey ? (words?.length ? [sooner, later] : [here - 1, here + 1]) : [here - 0.1, here + 0.1];
      const to = { ArrowLeft: step[0], ArrowRight: step[1], Home: 0, End: row.seconds }[e.key];
      if (e.ctrlKey || e.metaKey || e.altKey) return;
      if (to !== undefined) seek(to);
      else if (e.key === " ") toggle();
      else if (e.key === "+" || e.key === "=") zoomBy(ZOOM);
      else if (e.key === "-") zoomBy(1 / ZOOM);
      else return;
      e.preventDefault();
      e.stopPropagation();
    }
    function tell(seconds) {
      here = seconds;
      clock.textContent = `${seconds.toFixed(2)} / ${row.seconds.toFixed(2)} s` + (found ? ` · here ${found.at(seconds).toFixed(1)} × an even share` : "");
      slider.setAttribute("aria-valuenow", seconds.toFixed(2));
      slider.setAttribute("aria-valuetext", `${seconds.toFixed(2)} of ${row.seconds.toFixed(2)} seconds`);
      for (const { spans } of tiers) {
        for (const { start, end, span } of spans) span.style.fontWeight = seconds >= start && seconds < end ? "700" : "400";
      }
    }

    function draw() {
      surfer = WaveSurfer.create({
        container: slider, media: audio, url: row.audio || undefined, duration: row.seconds,
        peaks: [row.wave ? Float32Array.from(bytes(row.wave), (v) => v / 255) : new Float32Array(100)],
        height: HEIGHTS.wave, waveColor: colour("--wavebars"), progressColor: colour("--wavebars"),
        cursorColor: colour("--cursor"), cursorWidth: 2, interact: false,
      });
      const inside = surfer.getWrapper();
      inside.getRootNode().append(make("style", {}, ON_PAPER));
      if (found) {
        const [strip, paint] = heatStrip(row, found);
        paintStrip = paint;
        inside.append(styled(`position:absolute;z-index:3;top:0;left:0;right:0;height:${HEIGHTS.wave}px;pointer-events:none;mix-blend-mode:var(--blend)`, strip));
        for (const [start, end] of row.stretches ?? []) {
          inside.append(styled(
            `position:absolute;z-index:4;top:0;height:${HEIGHTS.wave + HEIGHTS.curve}px;left:${percent(start / row.seconds)};width:${percent((end - start) / row.seconds)};` +
              "background:var(--box);outline:1px solid var(--hot);outline-offset:-1px;pointer-events:none",
          ));
        }
        inside.append(curveBox);
      }
      tiers = ["words", "phones"].filter((name) => row[`spoken_${name}`]?.length).map((name) => tier(row, name, found, seek));
      inside.append(...tiers.map((one) => one.element), axis);
      new ResizeObserver(() => {
        const pixels = inside.clientWidth / row.seconds;
        axis.replaceChildren(...ticks(row, pixels));
        for (const one of tiers) one.label(pixels);
      }).observe(inside);
      inside.style.background = "var(--wave)";
      inside.addEventListener("click", (e) => {
        const box = inside.getBoundingClientRect();
        seek(((e.clientX - box.left) / box.width) * row.seconds);
      });
      surfer.on("timeupdate", tell);
      share(shared);
      tell(0);
    }
    function paint() {
      paintStrip();
      if (found) curveBox.replaceChildren(curve(row, found));
      for (const one of tiers) one.paint();
    }
    // On one scale (`common`) with what else is open.
    function share(scales) {
      shared = scales;
      if (found) found.full = scales.full;
      const next = chances(row, labels, scales.order);
      odds.replaceWith(next);
      odds = next;
      paint();
      zoom(0);
    }
    for (const event of ["play", "pause"]) {
      audio.addEventListener(event, () => (play.textContent = audio.paused ? "▶ Play" : "❚❚ Pause"));
    }
    audio.addEventListener("error", () => {
      if (row.audio) problem.textContent = `This browser cannot open the recording (${row.audio.slice(0, 200)}).`;
    });
    play.disabled = !row.audio;
    return {
      element, row, audio, toggle, press, zoom, share,
      // Its width has to be known: to be called once the element stands on the page.
      draw: () => row.seconds && draw(),
      recolour() {
        paint();
        surfer?.setOptions({ waveColor: colour("--wavebars"), progressColor: colour("--wavebars"), cursorColor: colour("--cursor") });
      },
      close() {
        audio.pause();
        surfer?.destroy();
        audio.removeAttribute("src");
        element.remove();
      },
    };
  }

  return { open, common };
})();
