"""Run jobs anywhere, keep every finished one: the cells of experiments and sweeps, and whatever else takes long.

Workers compute, this process alone writes: no shared disk is needed, and a cell that is computed twice (because its
worker died) is still one file.  Cells run in fresh processes of this machine or on a Dask cluster; in either case a
dead worker's cells are run again by another.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import threading
import time
import warnings
from collections.abc import Callable, Hashable, Iterator, Sequence, Sized
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from tempfile import TemporaryDirectory
from typing import Any, Protocol, TypeAlias, TypeVar, runtime_checkable

import jax
import joblib
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

from icq.display import Fact, Shown
from icq.note import Note
from icq_bounds.console import says
from icq_bounds.errors import FailedCells, Interrupted, WorkError
from icq_bounds.sweep.provenance import machine, xla_flags
from icq_bounds.sweep.store import Store, code_version


@runtime_checkable
class Job(Protocol):
    """A frozen dataclass that names its own result, a cell of a sweep for example; equal jobs give equal numbers."""

    def label(self) -> str:
        """A short name for progress lines."""
        ...

    def program(self) -> Hashable:
        """Cells that agree in this run the same compiled program (the order of cells rests on it, no result does)."""
        ...

    def run(self) -> Any:
        """The result: named arrays, or anything where no store keeps it."""
        ...


C = TypeVar("C", bound=Job)
PATIENCE = "20s"  # until a scheduler has to answer
JOBS = 1024  # processes of one machine at most
QUIET = 30.0  # seconds between progress lines where no terminal shows a bar


@dataclass(frozen=True)
class Attempt(Shown):
    """What became of a cell: its result and where it was computed, or why there is none."""

    cell: Job
    result: Any
    about: dict[str, Any] = field(default_factory=dict)
    error: str = ""

    def _facts_(self) -> list[Fact]:
        return [Fact("cell", self.cell.label()), Fact("result", self.result), Fact("error", self.error or None)]


Executor: TypeAlias = Callable[[Sequence[Job]], Iterator[Attempt]]


@dataclass(frozen=True)
class Pool:
    """What the worker processes of one machine share: their parent, and a folder of compiled programs (or none)."""

    parent: int
    compiled: str

    def join(self) -> None:
        """Make this process a worker: it leaves Ctrl-C to its parent, and dies with it even when that is killed."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        if not any(thread.name == "watch" for thread in threading.enumerate()):
            threading.Thread(target=self._watch, name="watch", daemon=True).start()
        if self.compiled and not jax.config.values["jax_compilation_cache_dir"]:  # one of the user's own is left alone
            jax.config.update("jax_compilation_cache_dir", self.compiled)
            jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)

    def _watch(self) -> None:
        while os.getppid() == self.parent:
            time.sleep(1.0)
        shutil.rmtree(self.compiled, ignore_errors=True)
        os._exit(1)


def attempt(cell: Job, code: str, pool: Pool | None = None) -> Attempt:
    """Run one cell where this is called.  An error of the cell is an outcome: the other cells go on.

    Raises WorkError in a worker whose sources or libraries are not the caller's.
    """
    if code_version() != code:
        raise WorkError(f"a worker runs code {code_version()}, this process {code}: install the same version there")
    if pool:
        pool.join()
    start = time.monotonic()
    try:
        result = cell.run()
    except Exception as error:  # any error whatever belongs to its cell
        return Attempt(cell, None, error=f"{type(error).__name__}: {' '.join(str(error).split())}")
    seconds = round(time.monotonic() - start, 3)
    where = {"machine": machine(), "device": jax.devices()[0].device_kind, "xla_flags": xla_flags()}
    return Attempt(cell, result, where | {"seconds": seconds})


def check_jobs(count: int) -> None:
    """Raise ValueError for a number of processes that no machine should be asked for."""
    if not 1 <= count <= JOBS:
        raise ValueError(f"jobs = {count} must be at least 1 and at most {JOBS}")


def processes(count: int, *, share: bool = True) -> Executor:
    """Fresh processes of this machine (never forked: JAX does not survive it); 1 runs in this one.

    share: workers share compiled programs through a folder; not worth it where every job has programs of its own.
    """

    def execute(cells: Sequence[Job]) -> Iterator[Attempt]:
        with TemporaryDirectory() as folder:
            pool = Pool(os.getpid(), folder if share else "") if count > 1 else None
            task = partial(attempt, code=code_version(), pool=pool)
            parallel = joblib.Parallel(n_jobs=count, batch_size=1, return_as="generator_unordered")
            yield from parallel(joblib.delayed(task)(cell) for cell in cells)

    return execute


def cluster(address: str) -> Executor:
    """The workers of a running Dask scheduler, tcp://host:port.

    Raises ValueError without the `cluster` extra, ConnectionError when nobody answers.
    """
    try:
        from distributed import CancelledError, Client, KilledWorker, as_completed
    except ImportError as error:
        raise ValueError("dask: not installed; pip install 'icq-bounds[cluster]'") from error

    def execute(cells: Sequence[Job]) -> Iterator[Attempt]:
        try:
            client = Client(address, timeout=PATIENCE)
        except (OSError, ValueError) as error:
            raise ConnectionError(f"dask: no scheduler answers at {address} ({error})") from error
        logging.getLogger("distributed.client").setLevel(logging.CRITICAL)  # what is lost is said below
        with client:
            if not client.scheduler_info()["workers"]:
                warnings.warn(f"dask: {address} has no workers yet, waiting for them", Note, stacklevel=2)
            futures = client.map(partial(attempt, code=code_version()), cells, pure=False)
            waiting = {future.key: cell for future, cell in zip(futures, cells, strict=True)}
            arriving = as_completed(futures)
            del futures  # a result is freed on its worker once it is here
            for future in arriving:
                cell = waiting.pop(future.key)
                try:
                    yield future.result()
                except KilledWorker as error:  # it took worker after worker with it
                    yield Attempt(cell, None, error=f"KilledWorker: {error}")
                except CancelledError as error:
                    raise ConnectionError(f"dask: lost {address} with {len(waiting) + 1} cells unfinished") from error

    return execute


def run_all(
    cells: Sequence[C], store: Store | None, execute: Executor, console: Console | None = None, *, noun: str = "cells"
) -> dict[C, Any]:
    """Run the missing cells and return every result; equal cells run once.

    Every finished cell is on disk at once, so an interrupted run goes on where it stopped; without a store nothing is
    kept.  `console` shows how many are finished (those found on disk included), the rate and the time left; noun: what
    the cells are called there.
    Raises FailedCells after the last cell when some had errors, Interrupted on Ctrl-C or SIGTERM.
    """
    cells = in_order(cells)
    done: dict[Any, Any] = {c: found for c in cells if store and (found := store.get(c)) is not None}
    failed: list[Attempt] = []
    console = console or Console(quiet=True)
    try:
        with _stoppable() as check, _progress(console, len(cells), len(done), noun) as finished:
            for outcome in _until_done([c for c in cells if c not in done], execute):
                if outcome.result is None:
                    failed.append(outcome)
                else:
                    if store:
                        store.put(outcome.cell, outcome.result, outcome.about)
                    done[outcome.cell] = outcome.result
                finished(outcome.cell.label())
                check()
    except KeyboardInterrupt as error:
        raise Interrupted(f"interrupted; {_kept(done, cells, store, noun)}") from error
    except OSError as error:
        said = f"{error.strerror or error}; {_kept(done, cells, store, noun)}"
        raise OSError(error.errno, said, error.filename) from error
    if failed:
        worst = "; ".join(f"{o.cell.label()}: {o.error}" for o in failed[:3])
        kept = ", the others are kept" if store else ""
        raise FailedCells(f"{len(failed)} of {len(cells)} {noun} failed{kept} ({worst})")
    return {cell: done[cell] for cell in cells}


def _kept(done: Sized, cells: Sequence[Job], store: Store | None, noun: str) -> str:
    finished = f"{len(done)} of {len(cells)} {noun} are finished"
    return f"{finished} and kept in {store.folder}; run the same command again to go on" if store else finished


def in_order(cells: Sequence[C]) -> list[C]:
    """Every cell once; the first of each compiled program comes first, so that workers compile different ones."""
    program = {cell: cell.program() for cell in cells}
    first = {program[cell]: cell for cell in reversed(cells)}
    return sorted(program, key=lambda cell: first[program[cell]] is not cell)


def _until_done(cells: Sequence[Job], execute: Executor) -> Iterator[Attempt]:
    """What became of all cells; when a process of the pool dies, the rest runs in a new one.

    Raises WorkError when a pool dies before finishing anything: its cells kill it.
    """
    left = dict.fromkeys(cells)
    while left:
        before = len(left)
        try:
            with closing(execute(list(left))) as outcomes:  # type: ignore[type-var]  # generators, all of them
                for outcome in outcomes:
                    del left[outcome.cell]
                    yield outcome
        except BrokenProcessPool as error:
            if len(left) == before:
                raise WorkError(f"workers die before they finish a cell (too little memory?): {error}") from error
            warnings.warn(f"a worker died; {len(left)} cells go to new ones", Note, stacklevel=2)


@contextmanager
def _stoppable() -> Iterator[Callable[[], None]]:
    """Ctrl-C and SIGTERM (a batch system's time limit) raise KeyboardInterrupt, and nothing can swallow them.

    An exception raised while Python happens to be inside a finaliser is dropped, so the signal is also remembered and
    raised again by the function given.  Only the main thread may handle signals.
    """
    heard: list[int] = []

    def stop(number: int, frame: object) -> None:
        heard.append(number)
        raise KeyboardInterrupt

    def check() -> None:
        if heard:
            raise KeyboardInterrupt

    try:
        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:
        yield check
        return
    try:
        yield check
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _progress(console: Console, total: int, resumed: int, noun: str) -> Iterator[Callable[[str], None]]:
    """A bar on a terminal, a line now and then elsewhere."""
    columns = (says(), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
               says("fields[left]"))  # fmt: skip
    start = said = time.monotonic()
    count = 0
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task(f"{resumed} found" if resumed else "starting", total=total, completed=resumed, left="")

        def finished(label: str) -> None:
            nonlocal count, said
            count += 1
            each = (time.monotonic() - start) / count
            left = f"{60 / each:.1f} {noun}/min, {_clock(each * (total - resumed - count))} left"
            progress.update(bar, advance=1, description=label, left=left)
            if not console.is_terminal and (time.monotonic() - said > QUIET or resumed + count == total):
                said = time.monotonic()
                console.print(f"{resumed + count} of {total} {noun}, {left}")

        yield finished


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
