"""The report's style sheet: light and dark, no fonts or files from elsewhere."""

STYLE = """
:root {
  color-scheme: light dark;
  --ground: #ffffff; --panel: #f6f7f9; --ink: #1d2430; --soft: #5c6675; --line: #dfe3e9;
  --accent: #2f6fc4; --good: #1f8a5b; --bad: #c23b4e; --mark: #b4690e;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #12161c; --panel: #1a2029; --ink: #e4e8ee; --soft: #9aa5b4; --line: #2c3542;
    --accent: #6aa5ee; --good: #4fbf8b; --bad: #ee7281; --mark: #e0a04f;
  }
}
* { box-sizing: border-box; }
html { scroll-padding-top: 3.4rem; }
body {
  margin: 0; background: var(--ground); color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif;
}
nav {
  position: sticky; top: 0; z-index: 2; background: var(--ground); border-bottom: 1px solid var(--line);
}
nav div {
  max-width: 1180px; margin: 0 auto; padding: .55rem 1.25rem; display: flex; gap: 1.15rem; overflow-x: auto;
  white-space: nowrap; font-size: .9rem;
}
nav a { color: var(--soft); text-decoration: none; }
nav a:hover { color: var(--accent); }
main { max-width: 1180px; margin: 0 auto; padding: 1.4rem 1.25rem 4rem; }
h1 { font-size: 1.85rem; line-height: 1.2; margin: .6rem 0 .3rem; letter-spacing: -.01em; }
h2 { font-size: 1.25rem; margin: 2.8rem 0 .4rem; }
h3 { font-size: 1rem; margin: 1.6rem 0 .4rem; }
p { margin: .4rem 0 .8rem; max-width: 78ch; }
.soft { color: var(--soft); }
.small { font-size: .86rem; }
code { font: .88em ui-monospace, "Cascadia Mono", "DejaVu Sans Mono", monospace; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(200px, 1fr)); gap: .8rem; margin: 1.2rem 0; }
.card { background: var(--panel); border: 1px solid var(--line); border-radius: 10px; padding: .8rem 1rem; }
.card b { display: block; font-size: 1.6rem; line-height: 1.25; font-variant-numeric: tabular-nums; }
.card span { color: var(--soft); font-size: .86rem; }
.scroll { overflow-x: auto; margin: .6rem 0 1rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
table.wide { width: 100%; }
th, td { padding: .42rem .7rem; text-align: right; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--soft); font-weight: 600; font-size: .84rem; white-space: nowrap; vertical-align: bottom; }
th.left, td.left { text-align: left; }
td .soft { font-size: .84rem; }
td.number { white-space: nowrap; }
table.wide th { white-space: normal; }
table.wide td:first-child { min-width: 13rem; }
tr.best td:first-child b { white-space: nowrap; }
tr.best td:first-child b::after { content: " ★"; color: var(--mark); }
sup.mark { color: var(--mark); font-weight: 600; }
.good { color: var(--good); } .bad { color: var(--bad); }
.tag {
  display: inline-block; padding: 0 .5em; border: 1px solid var(--line); border-radius: 99px; font-size: .78rem;
  color: var(--soft); white-space: nowrap;
}
figure { margin: .8rem 0 1.4rem; }
figure > svg { width: 100%; height: auto; display: block; }
figcaption { color: var(--soft); font-size: .86rem; margin-top: .3rem; max-width: 78ch; }
.heat td, .heat th { padding: .3rem .45rem; text-align: center; border: 1px solid var(--ground); }
.heat td { background: color-mix(in srgb, var(--accent) calc(var(--share) * 78%), var(--panel)); }
.heat td.strong { color: var(--ground); }
.heat th.row { text-align: right; white-space: nowrap; font-weight: 500; }
.heat th.column { writing-mode: vertical-rl; transform: rotate(180deg); text-align: left; font-weight: 500; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(430px, 1fr)); gap: 1rem 2rem; }
.strips { display: grid; grid-template-columns: repeat(auto-fit, minmax(480px, 1fr)); gap: 1.4rem 2rem; }
.strip .moments { display: flex; gap: .5rem; flex-wrap: wrap; }
.strip img { display: block; border-radius: 3px; background: #fff; }
.strip .moments img + img { margin-top: .25rem; }
.wheel { display: flex; gap: 1rem; align-items: center; margin: .6rem 0 1rem; }
details { margin: .6rem 0; }
summary { cursor: pointer; color: var(--accent); }
pre {
  background: var(--panel); border: 1px solid var(--line); border-radius: 8px; padding: .8rem; overflow-x: auto;
  font-size: .82rem; line-height: 1.4;
}
.digest { color: var(--soft); font: .82rem ui-monospace, "DejaVu Sans Mono", monospace; }
footer {
  color: var(--soft); border-top: 1px solid var(--line); margin-top: 3rem; padding-top: 1rem; font-size: .86rem;
}
@media print { nav { display: none; } details { display: block; } }
"""
