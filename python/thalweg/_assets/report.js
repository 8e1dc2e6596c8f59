// Draws the plotly figures of a report in the page's colours. Loads nothing.
(function () {
  "use strict";
  var dark = window.matchMedia("(prefers-color-scheme: dark)");
  var narrow = window.matchMedia("(max-width: 40rem)");
  var css = function (name) { return getComputedStyle(document.documentElement).getPropertyValue(name).trim(); };

  function themed(layout) {
    var out = JSON.parse(JSON.stringify(layout || {}));
    var ink = css("--ink"), line = css("--line");
    out.paper_bgcolor = "rgba(0,0,0,0)";
    out.plot_bgcolor = "rgba(0,0,0,0)";
    out.font = Object.assign({ family: "system-ui, sans-serif", size: narrow.matches ? 11 : 13 }, out.font, { color: ink });
    out.hoverlabel = { bgcolor: css("--card"), bordercolor: line, font: { color: ink } };
    var colour = function (axis) { return Object.assign({}, axis, { gridcolor: line, linecolor: line, zerolinecolor: line }); };
    Object.keys(out).forEach(function (key) {
      if (/^[xy]axis\d*$/.test(key)) out[key] = colour(out[key]);
      if (/^scene\d*$/.test(key)) ["xaxis", "yaxis", "zaxis"].forEach(function (axis) {
        out[key][axis] = Object.assign(colour(out[key][axis]), { backgroundcolor: css("--card"), color: ink });
      });
    });
    ["xaxis", "yaxis"].forEach(function (key) { if (!out[key]) out[key] = colour({}); });
    (out.updatemenus || []).forEach(function (menu) { menu.bgcolor = css("--card"); menu.bordercolor = line; menu.font = { color: ink }; });
    return out;
  }

  function draw(box) {
    var spec = box.spec || (box.spec = JSON.parse(box.querySelector("script").textContent));
    box.drawn = true;
    return Plotly.react(box, JSON.parse(JSON.stringify(spec.data)), themed(spec.layout), { responsive: true, displaylogo: false, displayModeBar: false });
  }

  var boxes = Array.prototype.slice.call(document.querySelectorAll(".plot"));
  function next(index) { // one after the other, so that the page can be read meanwhile
    if (index < boxes.length) setTimeout(function () { draw(boxes[index]); next(index + 1); }, 0);
  }
  next(0);
  var again = function () { boxes.forEach(function (box) { if (box.drawn) draw(box); }); };
  dark.addEventListener("change", again);
  narrow.addEventListener("change", again);
})();
