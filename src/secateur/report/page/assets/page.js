(function () {
  "use strict";
  var root = document.documentElement;
  var figures = JSON.parse(document.getElementById("figures").textContent);
  var names = Object.keys(figures);
  var dark = window.matchMedia("(prefers-color-scheme: dark)");
  var button = document.getElementById("theme");
  var printing = false;

  function kept(value) {
    try {
      if (value === undefined) { return window.localStorage.getItem("secateur-theme"); }
      window.localStorage.setItem("secateur-theme", value);
    } catch (error) { /* a page opened from disk may have no storage */ }
    return null;
  }

  function isDark() {
    var theme = root.getAttribute("data-theme");
    return theme ? theme === "dark" : dark.matches;
  }

  function shade(name, styles) {
    return styles.getPropertyValue("--" + name).trim() || "#888888";
  }

  // Colours of traces are names of the style sheet ("@accent"), so that the figures follow the theme.
  function coloured(value, styles) {
    if (typeof value === "string") { return /^@[a-z]+[0-9]*$/.test(value) ? shade(value.slice(1), styles) : value; }
    if (Array.isArray(value)) { return value.map(function (entry) { return coloured(entry, styles); }); }
    if (value && typeof value === "object") {
      var copy = {};
      Object.keys(value).forEach(function (key) { copy[key] = key === "customdata" || key === "text" ? value[key] : coloured(value[key], styles); });
      return copy;
    }
    return value;
  }

  function axis(given, styles, narrow) {
    var base = {
      gridcolor: shade("grid", styles), linecolor: shade("line", styles), zeroline: false, automargin: true,
      ticks: "outside", ticklen: 4, tickcolor: shade("line", styles), fixedrange: narrow
    };
    var result = Object.assign(base, given || {});
    if (typeof result.title === "string") { result.title = { text: result.title, standoff: 10, font: { size: 13, color: shade("muted", styles) } }; }
    return result;
  }

  function layout(given, styles, place) {
    var narrow = place.clientWidth < 560;
    var result = Object.assign({}, given);
    Object.keys(given).concat(["xaxis", "yaxis"]).forEach(function (key) {
      if (/^[xy]axis[0-9]*$/.test(key)) { result[key] = axis(given[key], styles, narrow); }
    });
    result.font = { family: getComputedStyle(document.body).fontFamily, size: narrow ? 11 : 13, color: shade("ink", styles) };
    result.paper_bgcolor = result.plot_bgcolor = "rgba(0,0,0,0)";
    result.margin = { l: narrow ? 40 : 56, r: 16, t: 16, b: 48 };
    result.hoverlabel = { bgcolor: shade("panel", styles), bordercolor: shade("line", styles), font: { color: shade("ink", styles) } };
    result.legend = Object.assign({ orientation: "h", x: 0, xanchor: "left", y: 1.02, yanchor: "bottom", bgcolor: "rgba(0,0,0,0)", font: { size: narrow ? 11 : 12 } }, given.legend || {});
    result.dragmode = narrow ? false : "zoom";
    result.autosize = true;
    result.annotations = (given.annotations || []).map(function (note) {
      return Object.assign({}, note, { xanchor: note.side === "left" ? "right" : "left", yanchor: "bottom", side: undefined });
    });
    return result;
  }

  function chosen(name) {
    var parts = [];
    document.querySelectorAll('[data-figure="' + name + '"]').forEach(function (control) {
      if (control.type !== "radio" || control.checked) { parts.push(control.value); }
    });
    return parts.join("|");
  }

  function draw(name) {
    var place = document.getElementById(name + "-plot");
    var figure = figures[name];
    var view = figure.views[chosen(name)] || figure.views[figure.first];
    var styles = getComputedStyle(root);
    if (view.words) { document.getElementById(name + "-text").textContent = view.words; }
    // Not Plotly.react: it omits the labels of points if the previous view had none.
    return Plotly.newPlot(place, coloured(view.data, styles), layout(coloured(view.layout, styles), styles, place), { responsive: true, displayModeBar: false });
  }

  function drawAll() { names.forEach(draw); }

  function told() { button.setAttribute("aria-pressed", String(isDark())); }

  function setTheme(theme) {
    root.setAttribute("data-theme", theme);
    told();
    drawAll();
  }

  var theme = kept();
  if (theme === "dark" || theme === "light") { root.setAttribute("data-theme", theme); }
  told();
  button.addEventListener("click", function () {
    var next = isDark() ? "light" : "dark";
    kept(next);
    setTheme(next);
  });
  dark.addEventListener("change", function () { told(); drawAll(); });

  document.querySelectorAll("[data-figure]").forEach(function (control) {
    control.addEventListener("change", function () { draw(control.getAttribute("data-figure")); });
  });

  // Disable combinations without any data.
  function possible() {
    names.forEach(function (name) {
      var views = Object.keys(figures[name].views);
      document.querySelectorAll('input[type="radio"][data-figure="' + name + '"]').forEach(function (control) {
        var position = Number(control.name.split("-choice-")[1]) - 1;
        var current = chosen(name).split("|");
        current[position] = control.value;
        control.disabled = views.indexOf(current.join("|")) < 0 && !control.checked;
      });
    });
  }
  document.addEventListener("change", possible);
  possible();

  var before = null;
  window.addEventListener("beforeprint", function () {
    if (printing) { return; }
    printing = true;
    before = root.getAttribute("data-theme");
    root.setAttribute("data-theme", "light");
    names.forEach(function (name) {
      draw(name);
      Plotly.relayout(document.getElementById(name + "-plot"), { width: 660 });
    });
  });
  window.addEventListener("afterprint", function () {
    printing = false;
    if (before) { root.setAttribute("data-theme", before); } else { root.removeAttribute("data-theme"); }
    names.forEach(function (name) {
      Plotly.relayout(document.getElementById(name + "-plot"), { width: null, autosize: true });
      draw(name);
    });
  });

  // Draw one figure at a time, so that the page stays responsive.
  var queue = names.slice();
  function next() {
    if (!queue.length) { root.setAttribute("data-drawn", "all"); return; }
    draw(queue.shift());
    window.setTimeout(next, 0);
  }
  next();

  if ("IntersectionObserver" in window) {
    var links = {};
    document.querySelectorAll("nav a").forEach(function (link) { links[link.getAttribute("href").slice(1)] = link; });
    var observer = new IntersectionObserver(function (entries) {
      entries.forEach(function (entry) {
        if (!entry.isIntersecting) { return; }
        Object.keys(links).forEach(function (key) { links[key].removeAttribute("aria-current"); });
        if (links[entry.target.id]) { links[entry.target.id].setAttribute("aria-current", "true"); }
      });
    }, { rootMargin: "-15% 0px -75% 0px" });
    document.querySelectorAll("main > section").forEach(function (section) { observer.observe(section); });
  }
}());
