"""Side by side timing: contenders take turns, medians are compared, and a page says how to run it again.

A machine that other work shares slows everybody for a while, so every round times every contender once, in changing
order, and a ratio is the median of the rounds' ratios.  `publish` writes the numbers as JSON and as one section of
docs/benchmarks.md.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
from jaxtyping import Float
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from rich.progress import track

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "benchmarks.md"
FIGURES = ROOT / "docs" / "figures"
RESULTS = ROOT / "results" / "bench"


@dataclass(frozen=True)
class Contender:
    """One way to do the work.  `call` returns when the result is there (block on asynchronous work inside it).

    work: units of work of one call (handoffs, states, instances): rates are work over seconds.
    """

    name: str
    call: Callable[[], object]
    work: float = 1.0


@dataclass(frozen=True)
class Timing:
    """Seconds [contenders, rounds] of contenders that took turns."""

    names: tuple[str, ...]
    work: Float[np.ndarray, "n"]
    seconds: Float[np.ndarray, "n rounds"]

    def rate(self, name: str) -> float:
        """Median work per second."""
        i = self.names.index(name)
        return float(self.work[i] / np.median(self.seconds[i]))

    def each(self, name: str) -> float:
        """Median seconds per unit of work."""
        return 1.0 / self.rate(name)

    def ratio(self, name: str, other: str) -> tuple[float, float, float]:
        """(median, lower, upper quartile) over rounds of the rate of `name` in units of the rate of `other`."""
        per = self.seconds / self.work[:, None]
        r = per[self.names.index(other)] / per[self.names.index(name)]
        return float(np.median(r)), float(np.quantile(r, 0.25)), float(np.quantile(r, 0.75))


def measure(contenders: Sequence[Contender], rounds: int = 7, warm: int = 1, label: str = "") -> Timing:
    """Time every contender once per round, in rotating order, after `warm` untimed calls (compilation, caches)."""
    names = tuple(c.name for c in contenders)
    if len(set(names)) != len(names):
        raise ValueError(f"contenders: repeated name in {names}")
    if rounds < 1:
        raise ValueError(f"rounds = {rounds} must be at least 1")
    for c in contenders:
        for _ in range(warm):
            c.call()
    seconds = np.zeros((len(contenders), rounds))
    for r in track(range(rounds), description=label or "measuring", transient=True):
        for i in np.roll(np.arange(len(contenders)), -r):
            start = time.perf_counter()
            contenders[i].call()
            seconds[i, r] = time.perf_counter() - start
    return Timing(names, np.array([c.work for c in contenders], float), seconds)


@dataclass(frozen=True)
class Section:
    """One table of the page.  rows: already formatted cells; note: what was measured and how; data: for machines."""

    title: str
    note: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    figures: tuple[str, ...] = ()
    data: dict[str, object] = field(default_factory=dict)

    def markdown(self) -> str:
        """The section as Markdown."""
        lines = (self.header, ("---",) * len(self.header), *self.rows)
        table = ["| " + " | ".join(cells) + " |" for cells in lines]
        pictures = [f"![{self.title}](figures/{name})" for name in self.figures]
        return "\n\n".join([f"### {self.title}", self.note, "\n".join(table), *pictures])


def publish(name: str, title: str, command: str, sections: Sequence[Section], packages: Sequence[str] = ()) -> None:
    """Write results/bench/NAME.json and replace the part NAME of docs/benchmarks.md (appended when new)."""
    about = machine(packages)
    RESULTS.mkdir(parents=True, exist_ok=True)
    content = {"machine": about, "command": command, "sections": [asdict(s) for s in sections]}
    (RESULTS / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")
    described = ", ".join(f"{key} {value}" for key, value in about.items())
    text = "\n\n".join([f"## {title}", f"`{command}`. {described}.", *(s.markdown() for s in sections)])
    page = (
        PAGE.read_text()
        if PAGE.exists()
        else "# Benchmarks\n\nMeasured, not promised; `make bench` writes this page.\n"
    )
    PAGE.write_text(replaced(page, name, text))


def replaced(page: str, name: str, text: str) -> str:
    """The page with part `name` replaced, or appended when there is none."""
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    part = f"{begin}\n{text}\n{end}"
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if pattern.search(page):
        return pattern.sub(lambda _: part, page)
    return f"{page.rstrip()}\n\n{part}\n"


def save(figure: Figure, name: str) -> str:
    """Save a figure beside the page and close it; returns its name for a Section."""
    FIGURES.mkdir(parents=True, exist_ok=True)
    figure.savefig(FIGURES / name, dpi=120, bbox_inches="tight", metadata={"Software": None})
    plt.close(figure)
    return name


def machine(packages: Sequence[str] = ()) -> dict[str, str]:
    """Processor, cores and versions; no host name and no path."""
    about = {"processor": _processor(), "cores": str(len(os.sched_getaffinity(0))), "python": platform.python_version()}
    for package in packages:
        try:
            about[package] = version(package)
        except PackageNotFoundError:
            about[package] = "not installed"
    return about


def _processor() -> str:
    try:
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found.group(1).strip() if found else platform.machine()


def compiled_c(source: Path, **sizes: int) -> Path | None:
    """A shared library of a C file, `cc -O3 -march=native`, its sizes compile-time constants.

    None, with a clear line, where there is no compiler.
    """
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        print(f"no C compiler found: {source.name} is left out of the comparison")
        return None
    target = Path(tempfile.mkdtemp(prefix="icq-bench-")) / (source.stem + ".so")
    flags = ["-O3", "-march=native", "-ffast-math", "-shared", "-fPIC", *(f"-D{k}={v}" for k, v in sizes.items())]
    subprocess.run([compiler, *flags, str(source), "-o", str(target), "-lm"], check=True)
    return target


def number(x: float) -> str:
    """Three significant digits, thousands grouped."""
    if not np.isfinite(x):
        return "n/a"
    if abs(x) >= 100:
        return f"{round(x, -max(int(np.floor(np.log10(abs(x)))) - 2, 0)):,.0f}".replace(",", "\u2009")
    return f"{x:.3g}"


def times(ratio: tuple[float, float, float]) -> str:
    """A ratio with its quartiles over the rounds."""
    return f"{number(ratio[0])} ({number(ratio[1])} to {number(ratio[2])})"
