"""How the page of a report looks, by day and by night, on a wide screen and on a telephone."""

STYLE = """
:root { color-scheme: light dark; --ink: #1c2330; --dim: #5c677a; --paper: #fff; --line: #dfe4ec;
  --voice: #d5dce8; --before: #d9822b; --after: #1769c4; --drawn: #1769c4; --alone: #c3cbd8; }
@media (prefers-color-scheme: dark) { :root { --ink: #e7ebf2; --dim: #97a3b6; --paper: #12161d;
  --line: #2b333f; --voice: #303a49; --before: #f0a04b; --after: #5aa9ff; --drawn: #5aa9ff;
  --alone: #465163; } }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.45 system-ui, sans-serif; }
main { max-width: 1100px; margin: 0 auto; padding: 16px; }
h1 { font-size: 22px; margin: 4px 0 14px; overflow-wrap: anywhere; }
h2 { font-size: 16px; margin: 26px 0 8px; }
p, .times { color: var(--dim); font-size: 13px; margin: 6px 0; }
img, svg { display: block; width: 100%; height: auto; border-radius: 6px; }
.tiles { display: flex; flex-wrap: wrap; gap: 10px; }
.tiles div { flex: 1 1 150px; border: 1px solid var(--line); border-radius: 8px;
  padding: 8px 12px; }
.tiles b { display: block; font-size: 20px; }
.tiles span { color: var(--dim); font-size: 13px; }
.times { display: flex; }
.times span { flex: 1; text-align: center; }
.warnings { border-left: 4px solid var(--before); padding: 6px 6px 6px 26px; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 3px 14px 3px 0; border-bottom: 1px solid var(--line);
  vertical-align: top; }
th { font-weight: 600; white-space: nowrap; }
td:nth-last-child(2) { white-space: nowrap; }
.bar { width: 260px; }
.bar i { display: block; height: 9px; margin-top: 6px; border-radius: 4px;
  background: var(--after); min-width: 1px; }
svg path { fill: none; stroke-width: 2; stroke-linejoin: round; }
svg .voice { fill: var(--voice); }
svg .before { stroke: var(--before); }
svg .after { stroke: var(--after); }
svg .drawn { fill: var(--drawn); }
svg .alone { fill: var(--alone); }
svg text { fill: var(--dim); font-size: 13px; }
.key { margin-right: 18px; }
.key::before { content: ""; display: inline-block; width: 14px; height: 9px; margin-right: 6px;
  border-radius: 2px; }
.key.voice::before { background: var(--voice); }
.key.before::before { background: var(--before); }
.key.after::before { background: var(--after); }
.key, .times span { white-space: nowrap; display: inline-block; }
@media (max-width: 640px) { .times span:nth-child(even) { visibility: hidden; }
  .bar { width: 40%; } svg text { font-size: 30px; } svg text:nth-of-type(n + 2) { display: none; }
  svg text:last-of-type { display: inline; } }
"""
