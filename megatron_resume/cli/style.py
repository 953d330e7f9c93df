"""How the page of `report` looks, by day and by night."""

STYLE = """
:root { color-scheme: light dark; --page: #f6f7f9; --card: #ffffff; --ink: #16202c; --soft: #5b6878; --line: #dfe4ea;
  --kept: #2a66c9; --lost: #d43a3a; --silent: #8b46c8; --setup: #dd9a1c; --down: #c3cbd6; --good: #1d8a55; }
@media (prefers-color-scheme: dark) { :root { --page: #10151c; --card: #18202a; --ink: #e7ecf2; --soft: #97a5b6;
  --line: #2b3644; --kept: #6ba3f5; --lost: #f47474; --silent: #c08cf0; --setup: #e9b44c; --down: #465364;
  --good: #52c78c; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.5 system-ui, "Segoe UI", Roboto,
  "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1140px; margin: 0 auto; padding: 32px 20px 48px; }
h1 { margin: 0; font-size: 26px; letter-spacing: -0.01em; }
h2 { margin: 0 0 4px; font-size: 17px; }
p { margin: 4px 0; }
code { font: 13px/1.5 ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace;
  overflow-wrap: anywhere; }
.soft, .note { color: var(--soft); }
.note { font-size: 13px; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 18px 20px;
  margin-top: 16px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(180px, 1fr)); gap: 16px; margin-top: 20px; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 14px 18px; }
.tile b { display: block; font-size: 28px; line-height: 1.25; letter-spacing: -0.01em; }
.tile span { color: var(--soft); font-size: 13px; }
.scroll { overflow-x: auto; }
svg { display: block; width: 100%; min-width: 760px; height: auto; }
.bar svg { min-width: 0; border-radius: 5px; margin-top: 10px; }
.grid { stroke: var(--line); }
.tickmark { stroke: var(--soft); }
.tick { fill: var(--soft); font-size: 12px; }
.leg { fill: none; stroke-width: 2.6; stroke-linejoin: round; stroke-linecap: round; }
.leg.kept { stroke: var(--kept); } .leg.lost { stroke: var(--lost); }
.leg.silent { stroke: var(--silent); stroke-dasharray: 1 5; } .leg.setup { stroke: var(--setup); }
.leg.down { stroke: var(--down); } .leg.drop { stroke: var(--lost); stroke-width: 1.4; stroke-dasharray: 3 4; }
.commit { fill: var(--card); stroke: var(--kept); stroke-width: 1.8; }
.end circle { fill: var(--card); stroke: currentColor; stroke-width: 1.6; }
.end path { fill: none; stroke: currentColor; stroke-width: 1.8; stroke-linecap: round; stroke-linejoin: round; }
.small { fill: currentColor; }
.killed, .failed { color: var(--lost); } .hung { color: var(--silent); }
.preempted, .stopped, .unknown, .new-budget { color: var(--soft); } .finished, .running { color: var(--good); }
.label, .cost { text-anchor: middle; }
.label { fill: var(--ink); font-size: 12px; font-weight: 600; } .cost { fill: var(--lost); font-size: 12px; }
.part.kept { fill: var(--kept); } .part.lost { fill: var(--lost); } .part.silent { fill: var(--silent); }
.part.setup { fill: var(--setup); } .part.down { fill: var(--down); }
.curve { fill: none; stroke: var(--kept); stroke-width: 2; stroke-linejoin: round; }
.curve.faint { opacity: 0.3; stroke-width: 1; }
.cross { stroke: var(--lost); stroke-width: 1.6; } .joint { stroke: var(--down); stroke-dasharray: 2 3; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 20px; margin-top: 10px; font-size: 13px; color: var(--soft); }
.legend i { display: inline-block; width: 11px; height: 11px; border-radius: 3px; margin-right: 6px; }
.legend b { color: var(--ink); font-weight: 600; }
table { border-collapse: collapse; width: 100%; font-size: 14px; font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 600; color: var(--soft); font-size: 13px; white-space: nowrap; }
th, td { padding: 7px 14px 7px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td.n { white-space: nowrap; } td.says { overflow-wrap: anywhere; min-width: 260px; }
td.how { font-weight: 600; white-space: nowrap; }
footer { margin-top: 18px; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 2px 14px; margin: 8px 0 0; font-size: 13px; }
dt { font-weight: 600; } dd { margin: 0; color: var(--soft); }
@media print { section, .tile { break-inside: avoid; } }
"""
