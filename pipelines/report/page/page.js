"use strict";
// Draws the figures of the page. A figure is drawn when it comes near the window, so that the first
// ones are there at once. With the fragment #draw-all all are drawn, for printing and for tests.
(() => {
  const DATA = JSON.parse(document.getElementById("data").textContent);
  const CONFIG = {
    displaylogo: false,
    displayModeBar: "hover",
    modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]],
  };
  const FEW = 10;
  const owners = { comparison: DATA.comparison };
  DATA.searches.forEach((search, index) => { owners["s" + index] = search; });

  const escaped = (text) =>
    String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const number = (value) =>
    typeof value === "number" && !Number.isInteger(value) ? String(+value.toPrecision(6)) : String(value);

  // The text of each trial, made when a figure first needs it.
  function texts(owner) {
    const trials = owner.trials;
    if (!owner.texts) {
      owner.texts = trials.id.map((id, i) => {
        const lines = [
          "trial " + escaped(id) + ", rank " + trials.rank[i],
          trials.outcome[i] + " after " + trials.epochs[i] + " epochs",
        ];
        for (const [name, values] of Object.entries(trials.values)) {
          if (values[i] !== null) lines.push(escaped(name) + " " + number(values[i]));
        }
        for (const [name, values] of Object.entries(trials.settings)) {
          if (values[i] !== null) lines.push(escaped(name) + " = " + escaped(number(values[i])));
        }
        return lines.join("<br>");
      });
    }
    return owner.texts;
  }

  function traces(figure, owner) {
    return figure.data.map((trace) => {
      const places = trace.customdata && trace.customdata.trials;
      if (!places) return trace;
      const all = texts(owner);
      return { ...trace, customdata: places.map((place) => (place === null ? "" : all[place] || "")) };
    });
  }

  const hasWebGL = () => {
    const canvas = document.createElement("canvas");
    return Boolean(canvas.getContext("webgl2") || canvas.getContext("webgl"));
  };

  // -- brushing ---------------------------------------------------------------------------------
  // Lists the best of the trials whose lines run through every chosen part of the axes.
  function showBrushed(element, figure, owner) {
    const dimensions = element.data[0].dimensions;
    const ranges = dimensions.map((dimension) => {
      const chosen = dimension.constraintrange;
      return chosen ? (Array.isArray(chosen[0]) ? chosen : [chosen]) : null;
    });
    const target = document.querySelector('.brushed[data-owner="' + element.dataset.owner + '"]');
    if (ranges.every((each) => each === null)) {
      target.textContent = "";
      return;
    }
    const rows = figure.brush
      .map((place, line) => [place, line])
      .filter(([, line]) =>
        ranges.every((chosen, axis) => {
          const value = dimensions[axis].values[line];
          return !chosen || chosen.some(([low, high]) => value >= low && value <= high);
        }))
      .map(([place]) => place)
      .sort((a, b) => a - b);
    const trials = owner.trials;
    const columns = [["rank", trials.rank], ["trial", trials.id],
      ...Object.entries(trials.values), ...Object.entries(trials.settings)];
    const table = document.createElement("table");
    const add = (kind, values) => {
      const row = table.insertRow();
      values.forEach((value) => {
        const cell = document.createElement(kind);
        cell.textContent = value === null || value === undefined ? "" : number(value);
        row.append(cell);
      });
    };
    add("th", columns.map(([name]) => name));
    rows.slice(0, FEW).forEach((place) => add("td", columns.map(([, values]) => values[place])));
    const text = document.createElement("p");
    text.textContent = rows.length + (rows.length === 1 ? " trial is" : " trials are") + " chosen" +
      (rows.length > FEW ? "; the best " + FEW + ":" : rows.length ? ":" : ".");
    const wide = document.createElement("div");
    wide.className = "wide";
    if (rows.length) wide.append(table);
    target.replaceChildren(text, wide);
  }

  // Fits figures to the page when its width changes; plotly's own way follows the window only.
  const resized = new ResizeObserver((entries) => {
    for (const { target, contentRect } of entries) {
      const drawn = target._fullLayout;
      if (drawn && contentRect.width && Math.abs(drawn.width - contentRect.width) > 1) {
        Plotly.relayout(target, { width: contentRect.width });
      }
    }
  });

  // -- drawing ----------------------------------------------------------------------------------
  async function draw(element) {
    if (element.dataset.drawn) return;
    element.dataset.drawn = "yes";
    const owner = owners[element.dataset.owner];
    const figure = owner.figures[element.dataset.figure];
    if (figure.brush && !hasWebGL()) {
      element.className = "missing";
      element.style.height = "auto";
      element.textContent = "This browser has no WebGL, with which parallel coordinates are drawn.";
      return;
    }
    const config = figure.brush ? { ...CONFIG, modeBarButtons: [["toImage"]] } : CONFIG;
    try {
      await Plotly.newPlot(element, traces(figure, owner), figure.layout, config);
    } catch (error) {  // the other figures are drawn all the same
      element.textContent = "This figure could not be drawn: " + error;
      return;
    }
    resized.observe(element);
    if (figure.brush) element.on("plotly_restyle", () => showBrushed(element, figure, owner));
  }

  const plots = [...document.querySelectorAll(".plot")];
  const visible = (element) =>  // not in a part of the page that is closed
    element.checkVisibility ? element.checkVisibility() : element.getClientRects().length > 0;
  async function drawAll(chosen) {
    for (const element of chosen) {
      if (visible(element)) await draw(element);
    }
  }
  const inWindow = plots.filter((element) =>
    visible(element) && element.getBoundingClientRect().top < window.innerHeight);

  drawAll(inWindow).then(async () => {
    document.documentElement.dataset.answersMs = Math.round(performance.now());
    if (location.hash === "#draw-all") {
      await drawAll(plots);
      document.documentElement.dataset.drawnMs = Math.round(performance.now());
    }
    const observer = new IntersectionObserver((entries) => {
      for (const entry of entries) {
        if (entry.isIntersecting) {
          observer.unobserve(entry.target);
          draw(entry.target);
        }
      }
    }, { rootMargin: "800px" });
    plots.forEach((element) => observer.observe(element));
    window.addEventListener("beforeprint", () => { drawAll(plots); });
  });
})();
