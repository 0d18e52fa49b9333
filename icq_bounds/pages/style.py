"""How a page looks: on a wide screen, on a phone and on paper."""

CSS = """
:root { color-scheme: light; --ink: #1c2330; --soft: #5b6473; --line: #dfe3e8; --back: #f6f7f9; --link: #0b5ea8;
  --good: #00694c; --bad: #b3261e; --warn: #8a5a00; }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; scroll-padding-top: 1rem; }
body { margin: 0; background: #fff; color: var(--ink); font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto,
  "Helvetica Neue", "Noto Sans", "DejaVu Sans", Arial, sans-serif; overflow-wrap: break-word; }
main { max-width: 64rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .4rem; letter-spacing: -.01em; }
h2 { font-size: 1.3rem; line-height: 1.3; margin: 0 0 .8rem; }
h3 { font-size: 1.02rem; margin: 1.6rem 0 .5rem; }
p, ul { max-width: 46rem; margin: .6rem 0; }
ul { padding-left: 1.2rem; }
a { color: var(--link); }
.lead { color: var(--soft); font-size: 1.05rem; margin: 0; }
nav { display: flex; flex-wrap: wrap; gap: .3rem 1.1rem; margin: 1.2rem 0 0; padding: .7rem 0;
  border-block: 1px solid var(--line); font-size: .93rem; }
nav a { text-decoration: none; }
nav a:hover { text-decoration: underline; }
section { margin-top: 2.6rem; }
code, pre { font-family: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; font-size: .86em; }
code { background: var(--back); border-radius: .25rem; padding: .1em .3em; overflow-wrap: anywhere; }
pre { background: var(--back); border-radius: .4rem; padding: .7rem .9rem; overflow-x: auto; white-space: pre-wrap;
  overflow-wrap: anywhere; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: .8rem; margin: 1.2rem 0; }
.facts div { background: var(--back); border-radius: .5rem; padding: .7rem .9rem; display: flex;
  flex-direction: column-reverse; justify-content: flex-end; }
.facts dt { color: var(--soft); font-size: .84rem; line-height: 1.35; }
.facts dd { margin: 0; font-size: 1.45rem; line-height: 1.3; font-weight: 600; font-variant-numeric: tabular-nums; }
.facts .interval { display: block; font-size: .8rem; font-weight: 400; }
.pairs { display: grid; grid-template-columns: minmax(7rem, max-content) 1fr; gap: .25rem 1.2rem; margin: .8rem 0;
  font-size: .93rem; }
.pairs dt { color: var(--soft); }
.pairs dd { margin: 0; min-width: 0; overflow-wrap: anywhere; }
figure { margin: 1.2rem 0; min-width: 0; }
figcaption { color: var(--soft); font-size: .9rem; line-height: 1.45; margin: .4rem 0; max-width: 46rem; }
figure svg { display: block; width: 100%; height: auto; max-width: 44rem; }
figure svg * { stroke-linejoin: round; stroke-linecap: butt; }
.broad svg { max-width: none; min-width: 40rem; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 27rem), 1fr)); gap: .6rem 2rem; }
.figures figure { margin: .4rem 0; }
.table figcaption { color: var(--ink); font-weight: 600; }
.scroll, .maths { overflow-x: auto; overscroll-behavior-x: contain;
  background: linear-gradient(to left, #fff 1.2rem, #fff0) right / 2.4rem 100% no-repeat local,
    linear-gradient(to left, #1c233026, #fff0) right / .6rem 100% no-repeat scroll; }
table { border-collapse: collapse; font-size: .9rem; line-height: 1.4; font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: .32rem .9rem .32rem 0; border-bottom: 1px solid var(--line);
  min-width: 3.5rem; }
th:last-child, td:last-child { padding-right: .3rem; }
th { color: var(--soft); font-weight: 600; font-size: .84rem; vertical-align: bottom; border-bottom-color: #b9c0ca; }
td:first-child:not(.number) { min-width: 7rem; }
td:not(.number, .short) { min-width: 8rem; }
.number { text-align: right; }
td.number, td.short { white-space: nowrap; }
.interval { color: var(--soft); white-space: nowrap; }
.none { color: var(--soft); font-style: italic; white-space: normal; display: inline-block; min-width: 6rem;
  max-width: 11rem; }
.badge { white-space: nowrap; font-weight: 600; font-size: .93em; }
.badge.holds { color: var(--good); } .badge.violated, .badge.FAILS { color: var(--bad); }
.badge.undecided { color: var(--warn); }
.badge.vacuous, .badge.inapplicable, .badge.other { color: var(--soft); }
.bar { display: flex; width: 8rem; height: .8rem; margin-top: .28rem; border-radius: .2rem; overflow: hidden;
  background: var(--back); print-color-adjust: exact; -webkit-print-color-adjust: exact; }
.bar .holds { background: #34a27c; } .bar .violated { background: #c8352b; } .bar .undecided { background: #e0a11b; }
.bar .vacuous { background: #a9b1bc; }
.bar .inapplicable { background: repeating-linear-gradient(135deg, #d5d9df 0 3px, #f6f7f9 3px 6px); }
.maths { overflow-y: hidden; padding: .5rem 0; margin: .8rem 0 .2rem; }
.maths math { font-size: 1.05rem; width: max-content; margin: 0; }
math { font-family: "STIX Two Math", "Cambria Math", "Latin Modern Math", "TeX Gyre DejaVu Math",
  "DejaVu Math TeX Gyre", "Noto Sans Math", math; }
mtd { padding-block: .4em; }
details { margin: .6rem 0; }
summary { cursor: pointer; color: var(--link); font-size: .93rem; padding: .2rem 0; }
.notice { border-left: .25rem solid #e0a11b; background: #fdf7e8; padding: .6rem .9rem; border-radius: 0 .4rem .4rem 0;
  max-width: none; }
.notice.bad { border-color: #c8352b; background: #fcefee; }
:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }
@media (max-width: 34rem) {
  main { padding: 1.25rem 1rem 3rem; }
  h1 { font-size: 1.5rem; }
  .facts { grid-template-columns: 1fr 1fr; gap: .5rem; }
  .facts div:last-child:nth-child(odd) { grid-column: 1 / -1; }
  .facts dd { font-size: 1.2rem; }
  .pairs { grid-template-columns: 1fr; gap: 0; }
  .pairs dd { margin-bottom: .5rem; }
  table { font-size: .84rem; }
  td:first-child:not(.number) { min-width: 5.5rem; }
  td:not(.number, .short) { min-width: 10rem; }
}
@media print {
  @page { margin: 16mm 15mm; }
  html { font-size: 9.5pt; }
  main { max-width: none; padding: 0; }
  nav, details.screen { display: none; }
  section { margin-top: 1.8rem; }
  h2, h3, figcaption, summary { break-after: avoid; }
  figure:not(.table), .brief, .facts, .notice, .maths, tr { break-inside: avoid; }
  thead { display: table-header-group; }
  .scroll, .maths, pre { overflow: visible; background: none; }
  table { font-size: 8pt; max-width: 100%; }
  th, td, td:not(.number, .short) { padding-right: .6rem; min-width: 0; }
  td.number:has(.interval) { white-space: normal; }
  .none { min-width: 0; max-width: 6rem; }
  td.number > span { white-space: nowrap; }
  td:first-child:not(.number) { min-width: 5rem; }
  .broad svg { min-width: 0; }
  .wide table { font-size: 5.6pt; }
  .wide th, .wide td { padding-right: .28rem; }
  .wide th { font-size: 1em; }
  .maths math { font-size: 8.5pt; }
  .figures { grid-template-columns: 1fr 1fr; }
  .facts div, .notice { border: 1px solid var(--line); }
  details::details-content { content-visibility: visible; block-size: auto; }
  summary { color: var(--ink); font-weight: 600; list-style: none; }
  a { color: inherit; text-decoration: none; }
}
"""
