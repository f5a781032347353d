#pragma once

namespace tandem::bench {

/// The style sheet of report.html: light and dark by the reader's preference. Series colours are
/// those of Okabe and Ito (2008), which colour-blind readers can tell apart.
inline constexpr const char* kReportStyle = R"css(
:root { color-scheme: light dark; --bg: #fbfbfa; --card: #fff; --fg: #1c1f23; --muted: #626a73;
  --grid: #e6e8ea; --axis: #9aa1a8; --band: #f4f5f6; --warn: #8a3b00; --warn-bg: #fff1e0;
  --c0: #0072b2; --c1: #d55e00; --c2: #009e73; --c3: #b8609a; --c4: #a67c00; --c5: #3c93c2; }
@media (prefers-color-scheme: dark) { :root { --bg: #14171a; --card: #1c2024; --fg: #e6e8ea;
  --muted: #9aa4ad; --grid: #2e343a; --axis: #5d666f; --band: #22272c; --warn: #ffc78a;
  --warn-bg: #3a2a18; --c0: #56b4e9; --c1: #f58a42; --c2: #2fc59c; --c3: #d98bbf; --c4: #e6b422;
  --c5: #8ccbe8; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 24px; max-width: 1320px; background: var(--bg); color: var(--fg);
  font: 15px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
h1 { font-size: 24px; margin: 0 0 4px; } h2 { font-size: 19px; margin: 32px 0 12px; }
h3 { font-size: 15px; margin: 0 0 2px; } p { margin: 4px 0; } .muted { color: var(--muted); }
.warning { background: var(--warn-bg); color: var(--warn); padding: 10px 14px; border-radius: 8px;
  font-weight: 600; margin: 12px 0; }
.tiles { display: flex; flex-wrap: wrap; gap: 12px; margin: 16px 0; }
.tile { background: var(--card); border: 1px solid var(--grid); border-radius: 10px;
  padding: 12px 18px; min-width: 150px; }
.tile b { display: block; font-size: 26px; line-height: 1.2; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(440px, 1fr)); gap: 16px; }
figure { margin: 0; background: var(--card); border: 1px solid var(--grid); border-radius: 10px;
  padding: 14px 16px; } figure p { font-size: 13px; }
svg { width: 100%; height: auto; display: block; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: 4px 18px; margin: 8px 0 0;
  padding: 0; font-size: 13px; }
.legend li { display: flex; align-items: center; gap: 7px; }
.legend svg { width: 26px; height: 12px; }
text { font-family: inherit; fill: var(--fg); } .tick { font-size: 12.5px; fill: var(--muted); }
.name { font-size: 13px; } .grid { stroke: var(--grid); } .axis { stroke: var(--axis); }
.band { fill: var(--band); } .line { fill: none; stroke-width: 2.2; }
.dashed { stroke-dasharray: 7 5; } .dotted { stroke-dasharray: 2 4; } .whisker { stroke-width: 1.4; }
.s0 { stroke: var(--c0); } .s1 { stroke: var(--c1); } .s2 { stroke: var(--c2); }
.s3 { stroke: var(--c3); } .s4 { stroke: var(--c4); } .s5 { stroke: var(--c5); }
.f0 { fill: var(--c0); } .f1 { fill: var(--c1); } .f2 { fill: var(--c2); }
.f3 { fill: var(--c3); } .f4 { fill: var(--c4); } .f5 { fill: var(--c5); }
.scroll { overflow-x: auto; background: var(--card); border: 1px solid var(--grid);
  border-radius: 10px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums;
  font-size: 13.5px; }
th, td { padding: 6px 12px; text-align: right; white-space: nowrap; }
th { color: var(--muted); font-weight: 600; } tr + tr { border-top: 1px solid var(--grid); }
th:first-child, td:first-child { text-align: left; } td i { color: var(--muted); font-style: normal; }
.best { font-weight: 700; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 4px 18px; font-size: 13.5px; }
dt { font-family: ui-monospace, "DejaVu Sans Mono", monospace; } dd { margin: 0; }
details { margin: 16px 0; } summary { cursor: pointer; font-weight: 600; margin-bottom: 8px; }
@media (max-width: 520px) { .charts { grid-template-columns: 1fr; } dl { display: block; } }
)css";

}  // namespace tandem::bench
