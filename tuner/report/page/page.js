"use strict";
// Unpacks Plotly and the figures, draws them from the top of the page on, and draws them again
// when the reader's colours, the width or the paper ask for it.
(() => {
  const root = document.documentElement;
  root.classList.add("js");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const narrow = matchMedia("(max-width: 599.98px)");
  const touch = matchMedia("(pointer: coarse)");
  const hovers = matchMedia("(hover: hover)");
  const PAPER_WIDTH = 660; // px that fit A4 and Letter inside their margins
  const PAPER_HEIGHT = 0.85; // of the height on a screen: two figures fit a sheet
  // All buttons but the one that saves a picture. A double click resets the axes.
  const NOT_NEEDED = [
    "zoom2d", "pan2d", "select2d", "lasso2d", "zoomIn2d", "zoomOut2d", "autoScale2d", "resetScale2d",
  ];
  // Figures on canvas that are kept: a browser has about 16 WebGL contexts, each takes three.
  const MOST_CANVASES = 4;
  const NEAR = 400; // px from what is seen: there a figure on canvas is drawn again
  const COLOUR = /#[0-9a-f]{6}\b|rgba?\([^)]*\)/gi;

  let shared = {}; // the figures' template
  let roles = {}; // colours by role, of the light page
  let darkOf = new Map(); // "r,g,b" of the light page -> [r, g, b] of the dark one
  let figures = [];
  let awake = []; // figures on canvas
  let printing = false;

  const channels = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));

  function swapped(colour) {
    const hex = colour.startsWith("#");
    const numbers = hex ? channels(colour) : colour.match(/[\d.]+/g) || [];
    const to = darkOf.get(numbers.slice(0, 3).map(Number).join());
    if (!to) return colour;
    return numbers.length > 3 ? `rgba(${to},${numbers[3]})` : `rgb(${to})`;
  }

  // A copy, as Plotly changes what it is given; with the colours of the dark page if asked for.
  function copied(value, toDark) {
    if (typeof value === "string") {
      return toDark && value.length > 6 ? value.replace(COLOUR, swapped) : value;
    }
    if (Array.isArray(value)) return value.map((one) => copied(one, toDark));
    if (value === null || typeof value !== "object") return value;
    const copy = {};
    for (const [name, one] of Object.entries(value)) {
      copy[name] = name === "bdata" ? one : copied(one, toDark);
    }
    return copy;
  }

  // Sets what a dotted name says, as "annotations[2].x", making what is missing on the way.
  function set(target, name, value) {
    const steps = name.match(/[^.[\]]+/g);
    steps.slice(0, -1).forEach((step, at) => {
      if (target[step] === null || typeof target[step] !== "object") {
        target[step] = /^\d+$/.test(steps[at + 1]) ? [] : {};
      }
      target = target[step];
    });
    target[steps.at(-1)] = value;
  }

  function state() {
    if (printing) return { small: false, toDark: false, look: "paper" };
    const small = narrow.matches;
    const toDark = dark.matches;
    return { small, toDark, look: `${small ? "narrow" : "wide"} ${toDark ? "dark" : "light"}` };
  }

  function shown(figure, { small, toDark }) {
    const patched = { data: copied(figure.data), layout: copied(figure.layout) };
    if (small) {
      for (const [name, value] of Object.entries(copied(figure.narrow))) {
        if (name.startsWith("traces[")) set(patched, name.replace("traces", "data"), value);
        else set(patched.layout, name, value);
      }
    }
    const { data, layout } = copied(patched, toDark);
    layout.template ??= copied(shared, toDark);
    layout.modebar ??= copied({ bgcolor: "rgba(0,0,0,0)", color: roles.muted, activecolor: roles.ink }, toDark);
    layout.uirevision ??= "kept"; // what the reader has zoomed or hidden stays so
    // Fingers scroll the page; a figure that can be dragged would hold them.
    if (small || touch.matches) layout.dragmode = false;
    if (printing) {
      layout.width = PAPER_WIDTH;
      layout.height = (layout.height ?? 450) * PAPER_HEIGHT;
    } else layout.autosize = true;
    return { data, layout, config: config(figure, small) };
  }

  function config(figure, small) {
    return {
      responsive: true,
      scrollZoom: false,
      displaylogo: false,
      showSendToCloud: false,
      plotlyServerURL: "",
      displayModeBar: hovers.matches && !small ? "hover" : false,
      modeBarButtonsToRemove: NOT_NEEDED,
      toImageButtonOptions: { filename: figure.id.replace(".plot", ""), scale: 2 },
    };
  }

  async function draw(figure) {
    const now = state();
    const { data, layout, config } = shown(figure, now);
    if (onCanvas(figure)) clear(figure);
    await Plotly.react(figure.div, data, layout, config);
    if (figure.div.querySelector(".no-webgl")) throw new Error("There is no WebGL.");
    figure.div.dataset.look = now.look;
    if (onCanvas(figure)) keepAwake(figure);
  }

  const onCanvas = (figure) => figure.div.querySelector("canvas") !== null;

  function keepAwake(figure) {
    figure.div.classList.remove("asleep");
    if (!awake.includes(figure)) awake.push(figure);
    if (awake.length <= MOST_CANVASES) return;
    const farthest = awake.reduce((one, other) => (distance(other) > distance(one) ? other : one));
    if (distance(farthest) <= NEAR) return; // on a tall screen
    awake = awake.filter((one) => one !== farthest);
    clear(farthest);
    farthest.div.replaceChildren(farthest.alt);
    farthest.div.classList.add("asleep");
    wakening.observe(farthest.div);
  }

  // Plotly leaves WebGL contexts to the garbage collector, which comes when it comes.
  function clear({ div }) {
    const canvases = [...div.querySelectorAll("canvas")];
    Plotly.purge(div);
    for (const canvas of canvases) {
      canvas.getContext("webgl")?.getExtension("WEBGL_lose_context")?.loseContext();
    }
  }

  // How many pixels a figure is away from what is seen.
  function distance({ div }) {
    const { top, bottom } = div.getBoundingClientRect();
    return Math.max(top - innerHeight, -bottom);
  }

  // A figure that sleeps is drawn again before it is seen.
  const wakening = new IntersectionObserver((entries) => {
    for (const { target } of entries.filter((entry) => entry.isIntersecting)) {
      wakening.unobserve(target);
      target.replaceChildren();
      target.classList.remove("asleep");
      target.dataset.look = "";
    }
    redraw();
  }, { rootMargin: `${NEAR}px 0px` });

  function fail(figure, error) {
    console.error(`Figure ${figure.id} cannot be drawn.`, error);
    if (figure.drawn) root.dataset.drawn = Number(root.dataset.drawn) - 1;
    figure.drawn = false;
    const sentence = document.createElement("p");
    sentence.className = "why";
    sentence.textContent = "This browser could not draw the figure. What it shows:";
    figure.div.classList.add("failed");
    figure.div.replaceChildren(sentence, figure.alt);
    root.dataset.failed = Number(root.dataset.failed) + 1;
  }

  const pause = () => new Promise((go) => setTimeout(go));

  async function drawAll() {
    for (const figure of figures) {
      try {
        figure.alt?.remove();
        await draw(figure);
        figure.drawn = true;
        root.dataset.drawn = Number(root.dataset.drawn) + 1;
      } catch (error) {
        fail(figure, error);
      }
      await pause();
    }
  }

  // From the top again until all figures are as they should be, whatever changes on the way.
  let redrawing = Promise.resolve();
  function redraw() {
    redrawing = redrawing.then(async () => {
      const stale = ({ drawn, div }) =>
        drawn && !div.classList.contains("asleep") && div.dataset.look !== state().look;
      for (let figure; (figure = figures.find(stale)); ) {
        await draw(figure).catch((error) => fail(figure, error));
        await pause();
      }
    });
  }

  // What is on canvas is drawn too late for a printer: it goes to paper as it is seen.
  function fitPaper({ div }, starts) {
    div.style.zoom = starts ? PAPER_WIDTH / div.clientWidth : "";
    div.style.background = starts && dark.matches ? swapped(roles.surface) : "";
  }

  function onPaper(starts) {
    const drawn = figures.filter((one) => one.drawn && !one.div.classList.contains("asleep"));
    drawn.filter(onCanvas).forEach((one) => fitPaper(one, starts));
    printing = starts;
    if (!starts) redraw();
    // A browser does not wait before it prints; Plotly's drawing is done when the call returns.
    else drawn.filter((one) => !onCanvas(one)).forEach(draw);
  }

  function unpacked(id) {
    const bytes = Uint8Array.from(atob(document.getElementById(id).textContent), (one) => one.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).text();
  }

  async function run(code) {
    const script = document.createElement("script");
    script.src = URL.createObjectURL(new Blob([code], { type: "text/javascript;charset=utf-8" }));
    await new Promise((loaded, failed) => {
      script.onload = loaded;
      script.onerror = () => failed(new Error("Plotly cannot be loaded."));
      document.head.append(script);
    });
    URL.revokeObjectURL(script.src);
  }

  async function showFigures() {
    const content = JSON.parse(await unpacked("figures"));
    shared = content.template;
    roles = content.roles;
    darkOf = new Map(Object.entries(content.dark).map(([from, to]) => [channels(from).join(), channels(to)]));
    figures = content.figures.map((figure) => {
      const div = document.getElementById(figure.id);
      return { ...figure, div, alt: div.firstElementChild, drawn: false };
    });
    Object.assign(root.dataset, { figures: figures.length, drawn: 0, failed: 0 });
    await run(await unpacked("plotly"));
    dark.addEventListener("change", redraw);
    narrow.addEventListener("change", redraw);
    addEventListener("beforeprint", () => onPaper(true));
    addEventListener("afterprint", () => onPaper(false));
    redrawing = drawAll();
    redraw();
  }

  function withoutFigures(error) {
    console.error("The figures cannot be unpacked.", error);
    root.classList.remove("js");
    document.getElementById("no-figures").hidden = false;
  }

  async function copy(button) {
    const code = button.parentElement.querySelector("code");
    try {
      await navigator.clipboard.writeText(code.textContent);
    } catch {
      // Not every browser lets a file do that: select the words, and copy the old way.
      getSelection().selectAllChildren(code);
      document.execCommand("copy");
    }
    button.textContent = document.getElementById("said").textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  }

  function openMenus() {
    return [...document.querySelectorAll("nav details[open]")];
  }

  function followReader() {
    const links = new Map([...document.querySelectorAll("nav li a")].map((link) => [link.hash.slice(1), link]));
    const seen = new IntersectionObserver((entries) => {
      for (const { target } of entries.filter((entry) => entry.isIntersecting)) {
        document.querySelectorAll("nav .here").forEach((one) => one.classList.remove("here"));
        links.forEach((link, id) => {
          if (id !== target.id) link.removeAttribute("aria-current");
        });
        const link = links.get(target.id);
        link.setAttribute("aria-current", "true");
        const item = link.closest("details") ?? link;
        item.classList.add("here");
        const bar = document.querySelector("nav .page > ul");
        bar.scrollLeft = item.offsetLeft - bar.offsetLeft - (bar.clientWidth - item.offsetWidth) / 2;
      }
    }, { rootMargin: "-20% 0px -75% 0px" });
    document.querySelectorAll("main section[id]").forEach((section) => seen.observe(section));
  }

  document.addEventListener("DOMContentLoaded", () => {
    showFigures().catch(withoutFigures);
    followReader();
    for (const button of document.querySelectorAll(".copy")) {
      button.hidden = false;
      button.addEventListener("click", () => copy(button));
    }
    document.addEventListener("click", (event) => {
      for (const menu of openMenus()) {
        if (!menu.contains(event.target) || event.target.closest("a")) menu.open = false;
      }
    });
    document.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      for (const menu of openMenus()) {
        menu.open = false;
        menu.querySelector("summary").focus();
      }
    });
  });
})();
