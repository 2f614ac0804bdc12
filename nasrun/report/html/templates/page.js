"use strict";
(() => {
  const charts = JSON.parse(document.getElementById("charts").textContent);
  const places = [...document.querySelectorAll(".plot")];
  const PRINTED = 660; // width of a chart on A4, in pixels
  const font = { family: getComputedStyle(document.body).fontFamily, size: 12 };

  const axis = (own) => ({
    automargin: true, zeroline: false, showline: true, ticks: "outside", ticklen: 4, nticks: 7,
    exponentformat: "none", ...own, title: { standoff: 10, ...own.title },
  });

  const layoutOf = (chart) => {
    const layout = {
      font, height: chart.height, autosize: true, paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)", margin: { l: 56, r: 16, t: 34, b: 48 },
      legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom" },
      hoverlabel: { align: "left", font: { family: "ui-monospace, Menlo, Consolas, monospace", size: 11 } },
      ...chart.layout,
    };
    for (const name of Object.keys(layout)) {
      if (/^[xy]axis\d*$/.test(name)) {
        layout[name] = axis(layout[name]);
      }
    }
    return layout;
  };

  const copied = async (code, button) => {
    try {
      await navigator.clipboard.writeText(code.textContent);
    } catch {
      getSelection().selectAllChildren(code);
      document.execCommand("copy");
    }
    button.textContent = "copied";
    setTimeout(() => { button.textContent = "copy"; }, 1500);
  };

  for (const box of document.querySelectorAll(".command")) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "copy";
    button.addEventListener("click", () => copied(box.querySelector("code"), button));
    box.append(button);
  }

  for (const place of places) {
    const chart = charts[Number(place.dataset.chart)];
    Plotly.newPlot(place, chart.traces, layoutOf(chart), {
      displaylogo: false, responsive: true, toImageButtonOptions: { format: "svg" },
      modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d", "sendChartToCloud"],
      plotlyServerURL: "", showSendToCloud: false, // nothing leaves the page
    });
    if (!chart.command) continue;
    const box = place.parentElement.querySelector(".chosen");
    place.on("plotly_click", (event) => {
      const end = event.points[0].customdata;
      if (!end) return;
      box.hidden = false;
      box.querySelector("code").textContent = chart.command + end;
    });
  }

  const resize = (width) => places.forEach((place) => {
    Plotly.relayout(place, width ? { width, autosize: false } : { width: null, autosize: true });
  });
  addEventListener("beforeprint", () => resize(PRINTED));
  addEventListener("afterprint", () => resize(null));
})();
