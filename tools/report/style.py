"""The report's style sheet: one column that fits a phone, light and dark."""

CSS = """
:root {
  color-scheme: light dark;
  --ground: #f6f7f9; --card: #ffffff; --line: #e1e4ea; --text: #14171c; --quiet: #586070;
  --accent: #0b66d6; --grey: #8e97a6; --track: #eceff4; --up: #0a7a3d; --down: #b3261e;
  --pixels: #c98a12; --found: #ff9d0a;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #0f1216; --card: #181c22; --line: #2b313b; --text: #e9ecf1; --quiet: #a2abba;
    --accent: #62a8ff; --grey: #7d8798; --track: #262c36; --up: #4ecb86; --down: #ff8a80;
    --pixels: #e0ab45;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0 auto; padding: 28px 24px 64px; max-width: 1120px; background: var(--ground);
  overflow-wrap: break-word;
  color: var(--text);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", Arial, sans-serif;
  font-variant-numeric: tabular-nums;
}
h1 { margin: 0; font-size: 30px; line-height: 1.2; letter-spacing: -0.01em; }
h2 { margin: 44px 0 12px; font-size: 21px; line-height: 1.3; }
h3 { margin: 0; font-size: 15px; line-height: 1.4; }
h3 small, h1 small { color: var(--quiet); font-weight: 400; font-size: 13px; }
p { margin: 0 0 12px; }
.about { margin: 8px 0 22px; color: var(--quiet); }
.hint, .facts, .missing { color: var(--quiet); font-size: 14px; }
.missing { font-style: italic; }
.card, .chart, .made, .scroll, .wide {
  background: var(--card); border: 1px solid var(--line); border-radius: 10px;
}
.strip { display: grid; gap: 14px; grid-template-columns: repeat(3, 1fr); margin-bottom: 10px; }
.card { padding: 14px 16px 12px; }
.card .large { margin: 0 0 8px; font-size: 32px; font-weight: 650; line-height: 1.25; }
.card .large small { font-size: 14px; font-weight: 400; color: var(--quiet); }
.card .facts { margin: 8px 0 0; font-size: 13px; display: flex; flex-wrap: wrap; gap: 0 16px; }
.bar { display: grid; grid-template-columns: 84px 1fr 40px; align-items: center; gap: 8px;
  font-size: 13px; line-height: 1.75; }
.bar .name { color: var(--quiet); }
.bar .value { text-align: right; font-weight: 600; }
.track { position: relative; height: 9px; border-radius: 3px; background: var(--track); }
.fill { position: absolute; inset: 0 auto 0 0; border-radius: 3px; background: var(--grey); }
.fill.pretrained { background: var(--accent); }
.fill.raw_pixels { background: var(--pixels); }
.track .range { position: absolute; top: 0; bottom: 0; min-width: 4px; color: var(--text);
  border: solid; border-width: 0 1.5px; transform: translateX(-1px);
  background: linear-gradient(currentColor, currentColor) center / 100% 1.5px no-repeat; }
.scroll { overflow-x: auto; margin: 0 0 12px; }
table { border-collapse: collapse; width: 100%; font-size: 15px; }
th, td { padding: 9px 16px; text-align: right; vertical-align: top; white-space: nowrap; }
thead th { color: var(--quiet); font-size: 13px; font-weight: 600; }
tbody tr { border-top: 1px solid var(--line); }
th:first-child { text-align: left; font-weight: 400; white-space: normal; }
td .range, th .range { color: var(--quiet); font-size: 13px; font-weight: 400; }
th .range, td b + .range { display: block; }
.chain td > .range { display: inline-block; width: 9.2em; padding-left: 0.3em; text-align: left; }
.chain td > b + .range { display: block; width: auto; text-align: right; }
.chain thead th:nth-child(2), .chain thead th:nth-child(3) { padding-right: calc(20px + 9.2em); }
b.up { color: var(--up); } b.down { color: var(--down); }
sup { color: var(--quiet); font-size: 11px; line-height: 0; margin-left: 2px; }
.notes { margin: 0 0 12px; padding-left: 20px; color: var(--quiet); font-size: 13px; }
details { margin: 6px 0; }
summary { cursor: pointer; color: var(--accent); font-size: 14px; padding: 2px 0; }
details[open] > summary { margin-bottom: 8px; }
.charts { display: grid; gap: 14px; grid-template-columns: repeat(2, 1fr); }
figure { margin: 0; }
.chart { padding: 12px 12px 6px; }
.chart svg { display: block; width: 100%; height: auto; }
figcaption { font-size: 13px; color: var(--quiet); }
.chart figcaption { display: flex; flex-wrap: wrap; gap: 2px 14px; margin: 0 4px 4px; }
.chart figcaption b { color: var(--text); font-size: 15px; flex: 1 0 auto; }
.key::before { content: ""; display: inline-block; width: 16px; height: 3px; margin-right: 6px;
  vertical-align: middle; background: var(--grey); border-radius: 2px; }
.key.pretrained::before { background: var(--accent); }
.grid { stroke: var(--line); fill: none; }
.level { stroke: var(--quiet); stroke-dasharray: 4 4; fill: none; }
.tick, .axis { fill: var(--quiet); font-size: 12px; }
.curve { fill: none; stroke: var(--grey); stroke-width: 2; stroke-linejoin: round; }
.end { fill: var(--grey); }
.curve.pretrained { stroke: var(--accent); } .end.pretrained { fill: var(--accent); }
.wide { padding: 12px; margin-bottom: 12px; width: fit-content; }
.wide img { display: block; width: 840px; max-width: 100%; height: auto; margin-bottom: 6px; }
.pixels { image-rendering: pixelated; }
.shots { display: grid; gap: 10px; grid-template-columns: repeat(auto-fill, minmax(160px, 1fr));
  margin: 8px 0 20px; align-items: start; }
.boxes { display: block; width: 100%; height: auto; border-radius: 6px; }
.boxes rect { fill: none; vector-effect: non-scaling-stroke; }
.boxes .halo { stroke: rgb(0 0 0 / 0.55); stroke-width: 4; }
.boxes .found { stroke: var(--found); stroke-width: 2.2; }
.boxes .truth { stroke: #fff; stroke-width: 1.8; stroke-dasharray: 5 4; }
.boxes text { fill: #fff; font-weight: 600; stroke: rgb(0 0 0 / 0.8); paint-order: stroke;
  stroke-linejoin: round; }
.swatch { display: inline-block; width: 22px; height: 13px; margin: 0 5px 0 2px;
  vertical-align: -1px; background: #5b6472; border: 2px solid var(--found); }
.swatch.truth { border: 0; height: 15px; vertical-align: -3px; outline: 1.5px dashed #fff;
  outline-offset: -3px; }
.panels { display: grid; gap: 24px; grid-template-columns: repeat(2, 1fr); }
.queries { margin-top: 8px; display: grid; gap: 8px; }
.queries .row { display: flex; gap: 5px; }
.queries figure { flex: 1 1 0; max-width: 64px; }
.queries img { display: block; width: 100%; aspect-ratio: 1; object-fit: contain;
  border-radius: 5px; outline: 2px solid transparent; }
.queries figcaption { font-size: 11px; text-align: center; line-height: 1.6; }
.queries .query { padding-right: 8px; margin-right: 3px; border-right: 2px solid var(--line);
  flex-grow: 1.25; max-width: 76px; }
.queries .same img, .hint .same { outline: 2px solid var(--up); }
.queries .other { opacity: 0.6; }
.hint .same { border-radius: 3px; padding: 0 4px; outline-width: 1.5px; }
.made { padding: 12px 16px; margin-bottom: 10px; }
.made .values { list-style: none; display: flex; flex-wrap: wrap; gap: 0 18px; margin: 4px 0 6px;
  padding: 0; font-size: 14px; }
.made code { display: block; padding: 7px 10px; border-radius: 6px; background: var(--ground);
  font: 13px/1.5 ui-monospace, "SFMono-Regular", Menlo, Consolas, "DejaVu Sans Mono", monospace;
  overflow-wrap: anywhere; }
.made .facts { margin: 7px 0 0; font-size: 13px; overflow-wrap: anywhere; }
footer { margin-top: 40px; padding-top: 14px; border-top: 1px solid var(--line);
  color: var(--quiet); font-size: 13px; overflow-wrap: anywhere; }
@media (max-width: 860px) { .strip { grid-template-columns: repeat(2, 1fr); } }
@media (max-width: 640px) {
  body { padding: 18px 14px 48px; font-size: 15px; }
  h1 { font-size: 24px; }
  h2 { margin-top: 34px; font-size: 19px; }
  .strip, .charts, .panels { grid-template-columns: 1fr; }
  .strip { gap: 10px; }
  .shots { grid-template-columns: repeat(2, 1fr); }
  .card { padding: 10px 14px; display: flex; flex-wrap: wrap; align-items: baseline;
    justify-content: space-between; }
  .card .large { margin: 0; font-size: 23px; }
  .card .large small { font-size: 13px; }
  .card .large span { display: none; }
  .card .bars, .card .facts { width: 100%; }
  .bar { line-height: 1.55; }
  table { font-size: 14px; }
  th, td { padding: 8px 9px; }
  th:first-child { padding-left: 12px; }
  thead th { white-space: normal; }
  td .range { display: block; font-size: 12px; }
  .chain tr { display: grid; grid-template-columns: 1fr 1fr 68px; padding: 8px 14px; }
  .chain th, .chain td { padding: 0; }
  .chain th:first-child { grid-column: 1 / -1; padding: 0 0 3px; }
  .chain th .range { display: inline-block; margin-right: 6px; font-size: 12px; }
  .chain thead th:nth-child(n) { padding-right: 0; }
  .chain td > .range { display: block; width: auto; padding: 0; text-align: right; }
}
"""
