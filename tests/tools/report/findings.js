// Runs in a page that shows a report in frames, one for each width and colour scheme, and writes
// what it finds in each into <pre id="findings"> as JSON. The pictures of SVG, which do not tell
// whether they could be decoded, stand beside the frames once more.

function rgba(text) {
  const [red, green, blue, alpha = 1] = text.match(/[\d.]+/g).map(Number);
  return [red, green, blue, alpha];
}

function over(top, below) {
  return [0, 1, 2].map((i) => top[3] * top[i] + (1 - top[3]) * below[i]).concat(1);
}

function luminance(colour) {
  const [red, green, blue] = colour.slice(0, 3).map((value) => {
    const share = value / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}

// WCAG 2.2, "contrast ratio": of an element's words and what lies behind them.
function contrast(element, view) {
  let behind = [255, 255, 255, 1];
  let opacity = 1;
  const layers = [];
  for (let each = element; each; each = each.parentElement) {
    const style = view.getComputedStyle(each);
    opacity *= Number(style.opacity);
    layers.unshift(rgba(style.backgroundColor));
  }
  for (const layer of layers) behind = over(layer, behind);
  const style = view.getComputedStyle(element);
  const colour = rgba(element.namespaceURI.endsWith("svg") ? style.fill : style.color);
  const words = over([...colour.slice(0, 3), colour[3] * opacity], behind);
  const [dark, light] = [luminance(words), luminance(behind)].sort((a, b) => a - b);
  return (light + 0.05) / (dark + 0.05);
}

function findings(frame) {
  const view = frame.contentWindow;
  const page = frame.contentDocument;
  const closed = page.documentElement.scrollWidth;
  for (const details of page.querySelectorAll("details")) details.open = true;
  const cut = [...page.querySelectorAll(".scroll, .card, .chart, .made")]
    .filter((box) => box.scrollWidth > box.clientWidth)
    .map((box) => `${box.className}: ${box.textContent.trim().slice(0, 40)}`);
  const pale = [];
  for (const element of page.body.querySelectorAll("*")) {
    const own = [...element.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
    // Words over a photograph have an outline of their own instead.
    if (!own || !element.getClientRects().length || element.closest("svg.boxes")) continue;
    const ratio = contrast(element, view);
    if (ratio < 4.5) pale.push(`${element.textContent.trim().slice(0, 40)}: ${ratio.toFixed(2)}`);
  }
  const pictures = [...page.images, ...document.images];
  const broken = pictures.filter((image) => !image.naturalWidth).map((i) => i.src.slice(0, 40));
  return {
    width: view.innerWidth,
    dark: view.matchMedia("(prefers-color-scheme: dark)").matches,
    ground: luminance(rgba(view.getComputedStyle(page.body).backgroundColor)),
    sideways: Math.max(closed, page.documentElement.scrollWidth) - page.documentElement.clientWidth,
    pictures: pictures.length,
    broken,
    cut,
    pale,
  };
}

addEventListener("load", () => {
  const found = [...document.querySelectorAll("iframe")].map(findings);
  document.getElementById("findings").textContent = JSON.stringify(found);
});
