"use strict";
(() => {
  const root = document.documentElement;
  const charts = JSON.parse(document.getElementById("charts").textContent);
  const colour = (name) => getComputedStyle(root).getPropertyValue(name).trim();

  // Figures contain no colours of the page, so that both themes share one set of data.
  const theme = () => ({
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    "font.color": colour("--ink"),
    "font.family": getComputedStyle(document.body).fontFamily,
    "xaxis.gridcolor": colour("--line"),
    "yaxis.gridcolor": colour("--line"),
    "xaxis.zerolinecolor": colour("--muted"),
    "yaxis.zerolinecolor": colour("--line"),
    "xaxis.linecolor": colour("--line"),
    "yaxis.linecolor": colour("--line"),
    "hoverlabel.bgcolor": colour("--card"),
    "hoverlabel.bordercolor": colour("--line"),
    "hoverlabel.font.color": colour("--ink"),
    "hoverlabel.align": "left",
  });

  const element = (id) => document.getElementById(`chart-${id}`);
  const config = { responsive: true, displayModeBar: false };
  for (const [id, chart] of Object.entries(charts)) {
    const box = element(id);
    if (!box) continue;
    const layout = { height: 430, margin: { l: 70, r: 20, t: 20, b: 60 }, ...chart.figure.layout };
    Plotly.newPlot(box, chart.figure.data, layout, config).then(() => Plotly.relayout(box, theme()));
  }

  for (const group of document.querySelectorAll(".views")) {
    const id = group.dataset.for;
    group.addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (!button) return;
      for (const other of group.children) other.setAttribute("aria-pressed", String(other === button));
      const view = charts[id].views[button.dataset.view];
      Plotly.update(element(id), view.restyle, { ...view.layout, "xaxis.autorange": true, "yaxis.autorange": true });
    });
  }

  const repaint = () => {
    for (const id of Object.keys(charts)) if (element(id)) Plotly.relayout(element(id), theme());
  };
  document.getElementById("theme").addEventListener("click", () => {
    const dark = getComputedStyle(root).colorScheme === "dark";
    root.dataset.theme = dark ? "light" : "dark";
    repaint();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);
})();
