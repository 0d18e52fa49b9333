"""Results show themselves briefly, in text and in HTML, whatever state they are in."""

import dataclasses
import pkgutil
import sys
import typing
from functools import cache
from importlib import import_module
from inspect import getmembers, isclass, unwrap
from types import ModuleType
from xml.etree import ElementTree

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp
import sympy
import xarray
from markupsafe import Markup
from strategies import garnet

from audits import recovery, tightness
from audits.calibration.rows import Row
from bounds import ladder, planner, theorem
from bounds import symbolic as sym
from bounds.adversary import search
from bounds.approximation import classes
from bounds.approximation.class_error import class_error_bound, class_fixed_point
from bounds.approximation.sector_angle import Form
from bounds.core import bound, term
from bounds.core.bound import Certificate, Verdict
from bounds.core.curve import curve
from bounds.interface import agents, information, split
from bounds.interface.gap import scalar_gap_bound, scalar_gap_bound_d
from bounds.network.kernel import KernelPath
from bounds.network.run import network_run
from bounds.path.population_path import Path, population_path
from bounds.residual import moments
from bounds.residual import population as noise
from bounds.residual.sharp import Sharp, averaged_limit
from estimators import fit, td_noise, view
from estimators.cells import gather
from estimators.decomposition import TERMS, decompose, mixing_split
from estimators.interface import Channels
from estimators.logs import log as logs
from estimators.logs.report import Finding, ReaderReport
from estimators.statistics import estimate
from icq import build
from icq.display import LINES, WIDTH, Fact, Latex, Shown, facts, number, spread, text, word
from icq.exact import analyse
from icq.learn import classes as tables
from icq.learn import networks, population, sampling
from icq.learn.learner import LearnerConfig, init, learn
from icq.reason import Reason
from icq.sampled import fleet
from icq.smdp import ICSMDP, stack
from icq_bounds.check import NextRun, TermCheck
from icq_bounds.diagnosis import diagnosis, words
from icq_bounds.network_theorem import NetworkTheorem
from icq_bounds.pages import html, parts
from icq_bounds.sweep import engine
from icq_bounds.sweep.learning import Who
from icq_bounds.sweep.measure import measured
from icq_bounds.sweep.methods import PlainMlp, Reference, Table
from icq_bounds.sweep.results import KINDS, Statements
from icq_bounds.workflows.math.cells import Played
from icq_bounds.workflows.routing.cells import RoutingCell
from notebooks.explore import terms

pytestmark = pytest.mark.compiles

PACKAGES = ("icq", "estimators", "bounds", "icq_bounds", "audits")
# What a person writes down to have something done, or what code hands to code: a repr that repeats the call is right.
PLAIN = {
    "icq.display.Fact", "icq.reason.Why",
    "icq.described.Outcome",  # what an option may lead to, as a person says it
    "icq.archive.Promise",  # what a header of a file says
    "icq_bounds.sweep.axes.Setting",  # an axis that a sweep knows
    "audits.calibration.blocks.DataSets", "audits.calibration.suite.Study",  # what a calibration is asked to do
    "audits.calibration.rows.Quantity", "audits.calibration.rows.DataSource",
    "icq_bounds.workflows.common.recorded.RecordedTable",  # which recorded answers
    "icq_bounds.workflows.math.backends.Problem", "icq_bounds.workflows.math.backends.Answer",
    # what names a cell on disk
    "icq_bounds.sweep.methods.Table", "icq_bounds.sweep.methods.Features", "icq_bounds.sweep.methods.Mlp",
    "icq_bounds.sweep.methods.Schedule", "icq_bounds.sweep.methods.PlainMlp",
    "icq_bounds.sweep.spec.Spec",  # a sweep as it was asked for
}  # fmt: skip
SETTINGS = ("Cell", "Family", "Learning", "Options", "Preset")  # endings of types that are read from a command line


# --- every result type ----------------------------------------------------------------------------------------------


def modules():
    for package in PACKAGES:
        for found in pkgutil.walk_packages(import_module(package).__path__, f"{package}."):
            yield import_module(found.name)


@cache
def exported(package):
    """Names that a module imports for type checkers only are found here, in the module that has them."""
    return [
        pair
        for module in modules()
        if module.__name__.startswith(f"{package}.")
        for pair in getmembers(module, isclass)
    ]


def inside(hint):
    """The classes named in an annotation, however deep."""
    if isclass(hint) and not typing.get_args(hint):
        yield hint
    for part in typing.get_args(hint):
        yield from inside(part)


def record(cls):
    return dataclasses.is_dataclass(cls) or (issubclass(cls, tuple) and hasattr(cls, "_fields"))


def hints(thing, *wanted):
    """The annotations of a function or a class."""
    thing = unwrap(thing)
    known = (
        {"xr": xarray}
        | {name: x for part in PACKAGES for name, x in exported(part)}
        | vars(sys.modules[thing.__module__])
    )
    said = {name: x for name, x in getattr(thing, "__annotations__", {}).items() if not wanted or name in wanted}
    return [eval(x, known) if isinstance(x, str) else x for x in said.values()]


def of_class(cls):
    """What the public methods and properties of a class return."""
    for name, member in vars(cls).items():
        member = getattr(member, "fget", None) or getattr(member, "func", None) or member
        member = getattr(member, "__func__", member)
        if not name.startswith("_") and callable(member) and home(member) == cls.__module__ and not isclass(member):
            yield from hints(member, "return")


def results(module):
    """Public records that public functions of a module return, with those that their fields hold."""
    public = {name: x for name, x in vars(module).items() if not name.startswith("_")}
    found = [hint for x in public.values() if callable(x) and not isclass(x) and home(x) == module.__name__
             for hint in hints(x, "return")]  # fmt: skip
    own = [cls for cls in public.values() if isclass(cls) and cls.__module__ == module.__name__]
    found += [hint for cls in own for hint in of_class(cls)]
    todo, seen = [cls for hint in found for cls in inside(hint)], set()
    while todo:
        cls = todo.pop()
        if cls in seen or not record(cls) or cls.__name__.startswith("_") or not ours(cls, module):
            continue
        seen.add(cls)
        if full(cls) not in PLAIN and not cls.__name__.endswith(SETTINGS):
            todo += [part for hint in hints(cls) for part in inside(hint)]
            yield cls


def home(function):
    return getattr(unwrap(function), "__module__", None)


def ours(cls, module):
    return cls.__module__ == module.__name__ or cls.__module__.split(".")[0] in PACKAGES


def full(cls):
    return f"{cls.__module__}.{cls.__qualname__}"


def names(cls):
    return [f.name for f in dataclasses.fields(cls)] if dataclasses.is_dataclass(cls) else list(cls._fields)


def holding(cls, value):
    """An instance with this value in every field, whatever belongs there."""
    if issubclass(cls, tuple):
        return tuple.__new__(cls, [value] * len(names(cls)))
    made = object.__new__(cls)
    for name in names(cls):
        object.__setattr__(made, name, value)
    return made


def brief(shown):
    lines = shown.splitlines()
    return 1 <= len(lines) <= LINES and all(len(line) <= WIDTH for line in lines)


def shows(cls):
    """Whether a type prints briefly with large arrays, batches, nonsense and nothing inside, in both forms."""
    states = [holding(cls, np.arange(40_000.0).reshape(200, 200)), holding(cls, object()), holding(cls, None)]
    states += [holding(cls, np.float64("nan")), holding(cls, ()), holding(cls, "x" * 9999), holding(cls, {"k": 1})]
    states += [] if issubclass(cls, tuple) else [object.__new__(cls)]
    return all(brief(repr(x)) and hasattr(x, "_repr_html_") and parsed(x) is not None for x in states)


def parsed(shown):
    return ElementTree.fromstring(f"<r>{shown._repr_html_()}</r>")


def lacking(module):
    out = []
    for cls in results(module):
        try:
            good = shows(cls)
        except Exception:
            good = False
        out += [] if good else [full(cls)]
    return out


TYPES = {full(cls): cls for module in modules() for cls in results(module)}


@pytest.mark.parametrize("name", sorted(TYPES))
def test_every_result_type_shows_itself(name):
    assert shows(TYPES[name])


def test_the_inspection_sees_what_people_meet():
    seen = {"icq.exact.analysis.Analysis", "icq.smdp.ICSMDP", "icq.learn.learner.Record",
            "estimators.statistics.estimate.Estimate", "estimators.logs.log.Log", "estimators.logs.report.ReaderReport",
            "bounds.core.bound.Bound", "bounds.core.bound.Certificate", "bounds.theorem.Theorem",
            "bounds.core.term.Rung", "bounds.planner.Plan", "icq_bounds.diagnosis.diagnosis.Diagnosis"}  # fmt: skip
    assert seen <= set(TYPES) and len(TYPES) > 80
    everything = {full(c) for m in modules() for _, c in getmembers(m, isclass) if record(c)}
    assert everything >= PLAIN, "a type of the list of settings is gone"


PLANTED = """
from __future__ import annotations
from dataclasses import dataclass
import numpy as np
from icq.display import Shown

@dataclass(frozen=True)
class Silent:
    table: np.ndarray

@dataclass(frozen=True)
class Within:
    table: np.ndarray

@dataclass(frozen=True)
class Telling(Shown):
    parts: tuple[Within, ...]

class Maker:
    def silent(self) -> dict[str, Silent]: ...

def telling() -> Telling | None: ...
"""


def test_a_result_type_without_display_is_found(monkeypatch):
    module = ModuleType("bounds.planted")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(PLANTED, vars(module))
    assert {full(c) for c in results(module)} == {f"bounds.planted.{name}" for name in ("Silent", "Within", "Telling")}
    assert sorted(lacking(module)) == ["bounds.planted.Silent", "bounds.planted.Within"]


# --- real results ---------------------------------------------------------------------------------------------------

E = estimate.Estimate(0.0933, 0.0028, (0.088, 0.099), 2870.0, confidence=0.95)


@pytest.fixture(scope="module")
def a():
    return analyse(garnet(3, states=6, observations=4, options=2, agents=2, gamma=0.3, unavailable=0.0))


@pytest.fixture(scope="module")
def log(a):
    return logs.from_handoffs(a.smdp, sampling.trajectory(sampling.tables(a), jax.random.key(0), 8000), q=a.q_bar)


def of_icq(a):
    t, table = sampling.tables(a), tables.tabular(a.smdp)
    yield from (a, a.smdp, a.chain, a.law, a.oracle_solution, t, tables.random_features(a.smdp, 2, 0))
    yield networks.network(a.smdp, networks.one_hot_inputs(a.smdp), 4)
    yield learn(t, table, LearnerConfig(), seeds=[0, 1], checkpoints=[10, 20])
    yield init(t, table, LearnerConfig(), jax.random.key(0))
    yield sampling.trajectory(t, jax.random.key(0), 20)
    yield population.PopulationRun(np.zeros((2, 4, 2)), np.ones(2), np.ones(2), 7, False)
    yield build.Workflow(a.smdp, ("s",), ("o",), ("<b>",), (("x",),))
    yield fleet.Fleet({"w": np.ones(3)}, {"w": np.ones(3)}, (), np.zeros(64), jnp.int32(7))
    yield fleet.Episode(jnp.ones(2), jnp.array([3, 4]), jnp.array([5, 6]), jnp.array([True, False]), None)


def of_estimators(a, log):
    yield from (E, log, log.names, gather(log), view.counts(log), td_noise.noise(log), Channels(E, E, E))
    yield from decompose(a, np.stack([a.q_bar] * 3), a.q_bar)
    yield mixing_split(np.arange(1.0, 9.0), np.arange(2.0, 10.0))
    yield ReaderReport("log <1>", "line", 9, 8, 2, duplicates=Finding(1, 3), bad={"reward": Finding(1, 4)})
    yield fit.Fit(a.q_bar, {"w": np.ones((3, 3))}, 5, 1e-3, True)


def of_bounds(a):
    found = theorem.theorem(a, 1e-5, np.array([10, 10**4]))
    pop = noise.tabular(a)
    members = ladder.class_of(pop)
    yield from (found, found.interface, found.interface.rungs[0], found.setting[0], found.sheet())
    yield from (found.sheet().tables[0], found.total().limit, pop, members, scalar_gap_bound(a))
    yield from (classes.Ball(members, 3.0), classes.Box(a, -1.0, 1.0), agents.agent_gap_value(a, a.local_gap))
    yield from (split.best_split(a), information.total_variation(a), class_fixed_point(members), averaged_limit(pop))
    yield search.Tally(3, 1, 9, 0, 4, ratios=(1.5, 2.0, 4.0))
    yield curve("a curve", np.array([1, 5]), (), lambda: (np.array([2.0, 1.0]), {}), "here", 9.0)
    laws = (planner.PowerLaw(1.0, 0.5), planner.BitLaw(1.0), planner.SharpResidual(50.0))
    yield planner.plan(0.5, *laws, planner.Costs(1.0, 1.0, 1e-3))
    yield term.Observed(0.1, 0.09, 0.11)
    yield from (pop.sector, Form(pop.sector, pop.least_mass, pop.metric, np.ones(len(pop.metric)), pop.metric))
    yield population_path(pop, np.full(5, 1e-3), 0 * pop.theta_star)
    yield Path(np.array([0, 5]), np.ones((2, 3)), np.ones((2, 4), int), np.ones((1, 3)))
    yield KernelPath((), (), np.ones((2, 2)), {}, 0.1)
    yield network_run(a, networks.centred_network(a.smdp, 4), 1e-3, np.ones(a.q_bar.shape), np.array([5]))
    yield moments.RunMoments(np.array([1, 2]), *(np.ones(2) for _ in range(6)))


def of_experiments(a):
    interface = diagnosis.InterfaceTerm(E, E, Channels(E, E, E), (), None, 1.0)
    agent = diagnosis.Agent("<a>", 3, E, E, Channels(E, E, E))
    residual = diagnosis.ResidualTerm(9, E, E, E, E, E)
    yield from (
        interface,
        agent,
        residual,
        diagnosis.Diagnosis(interface, diagnosis.ApproximationTerm("table", E), residual),
    )
    said = words.Conclusion("interface", "the interface gap dominates")
    yield from (said, words.Said(said, (), (), (), {}, ()))
    yield recovery.Recovery(1, {"residual": E}, {"residual": 0.1})
    yield from (html.Grid("A < B", ("x",), [["y"]]), html.Drawing("a", "0 0 1 1", Markup(), "A < B", ""))
    yield html.Page("<title>A &lt; B</title>")
    known = scalar_gap_bound(a)
    yield TermCheck("residual", E, known, Verdict.HOLDS, Certificate.of(known), Verdict.HOLDS)
    yield NextRun(1.5, 0.75, E)
    cell = RoutingCell(bits=1, who=Who.ICQ, seeds=1, handoffs=10)
    yield engine.Attempt(cell, {"observed_total": np.ones(3)})
    yield Played(build.Workflow(a.smdp, (), (), (), ()), a, a.d, {"right": np.ones(3)})
    yield Reference(np.zeros((1, 4, 2)), 0.0, 0.0, True)
    found = Statements(np.ones(3), np.full(3, 2.0), np.zeros(3), np.array(["holds"] * 3))
    each = {kind: dict.fromkeys(TERMS, found) for kind in KINDS}
    yield from (found, parts.Records(each, {name: np.ones(3) for name in parts.NUMBERS}))
    held = measured(a, Table(), 2, (5, 10), False)
    yield from (held, NetworkTheorem(PlainMlp(4), held.times, held.before))
    seen = terms.learned(a, 1)
    yield from (terms.hidden(a), seen, terms.Terms(terms.hidden(a), seen.error, seen.residual(100)))
    yield tightness.Errors(*(np.ones(3) for _ in range(5)))
    yield Row("kappa", "ring", 100, 0.5, 64, 64, 60, 0.01, 0.001, 0.1, 0.1, 0.4, 90.0, 0.1)


def check(found):
    for x in found:
        said = [fact for fact in x._facts_() if fact.value is not None] if isinstance(x, Shown) else facts(x)
        assert said and said == facts(x), f"{type(x).__name__} falls back on its fields"
        assert brief(repr(x)), repr(x)
        assert parsed(x) is not None and "<script" not in x._repr_html_()
    return {full(type(x)) for x in found}


def test_results_of_each_package_say_what_they_are(a, log):
    seen = check([*of_icq(a), *of_estimators(a, log), *of_bounds(a), *of_experiments(a)])
    own = {name for name, cls in TYPES.items() if "_facts_" in vars(cls)}
    untried = own - seen
    assert not untried


def test_numbers_are_those_of_the_object(a, log):
    m = a.smdp
    assert text(m) == f"ICSMDP: states 6; options 2; outcomes {m.prob.shape[-1]}; observations 4; agents 2; " \
                      "gamma 0.3 per primitive step"  # fmt: skip
    assert f"interface gap {a.norm_d_state(a.gap):.4g}" in repr(a) and f"gamma_bar {a.gamma_bar:.4g}" in repr(a)
    assert "handoffs 8000" in repr(log) and f"tasks {log.task[-1] + 1}" in repr(log)
    found = scalar_gap_bound(a)
    assert f"{found.value:.4g}" in repr(found) and f"{found.trivial:.4g}" in repr(found) and found.name in repr(found)
    record = learn(sampling.tables(a), tables.tabular(m), LearnerConfig(), seeds=[0, 1], checkpoints=[10, 20])
    assert "2 x 2" in repr(record) and "handoffs 10 to 20" in repr(record)


def test_an_estimate_reads_like_a_sentence():
    assert repr(E) == "0.0933 (95 %: 0.088 to 0.099, n_eff 2870)"
    assert repr(estimate.exact(0.25)) == "0.25 (exact)"
    few = estimate.missing(Reason.FEW_RUNS, "3, 8 are needed")
    assert repr(few) == "none (too few runs (3, 8 are needed))" and "3, 8" in few._repr_html_()
    assert repr(dataclasses.replace(E, confidence=None)) == "0.0933 (0.088 to 0.099, n_eff 2870)"


@pytest.mark.parametrize("confidence", [0.8, 0.99])
def test_the_level_is_that_of_the_interval(a, log, confidence):
    samples = np.random.default_rng(0).normal(1.0, 0.1, 20)
    for found in (
        estimate.mean(samples, confidence), estimate.root_mean_square(samples, confidence),
        mixing_split(samples, samples[::-1], confidence).ratio,
        td_noise.sigma_0(log, confidence=confidence), td_noise.residual_constant(log, confidence=confidence),
    ):  # fmt: skip
        assert found.confidence == confidence and f"{100 * confidence:.4g} %" in repr(found)


def test_names_are_escaped_and_verdicts_are_badges():
    agent = diagnosis.Agent("<img src=x>", 3, E, E, Channels(E, E, E))
    assert "<img" not in agent._repr_html_() and "&lt;img src=x&gt;" in agent._repr_html_()
    shown = html_of(Fact("verdict", bound.Verdict.VIOLATED))
    assert "background" in shown and ">violated<" in shown


def html_of(*said):
    class Telling(Shown):
        def _facts_(self):
            return said

    return Telling()._repr_html_()


# --- other states ---------------------------------------------------------------------------------------------------


def test_batched_and_traced_instances_show_themselves(a):
    m = a.smdp
    assert repr(stack([m, m])).startswith("ICSMDP: batch 2; states 6;")
    seen = []

    def look(m: ICSMDP, config: LearnerConfig):
        seen.extend([repr(m), m._repr_html_(), repr(config)])
        return m.gamma

    jax.jit(look)(m, LearnerConfig())
    jax.vmap(look, in_axes=(0, None))(stack([m, m]), LearnerConfig(step=jnp.asarray(0.1)))
    assert len(seen) == 6 and all("traced" in seen[k] for k in (0, 2, 3)) and "gamma" in seen[1]


def test_equality_hashing_and_pytrees_are_untouched(a):
    assert dataclasses.replace(E) == E and hash(dataclasses.replace(E)) == hash(E)
    leaves, tree = jax.tree.flatten(a.smdp)
    assert len(leaves) == 10 and isinstance(jax.tree.unflatten(tree, leaves), ICSMDP)
    assert LearnerConfig() == LearnerConfig()


def test_an_inapplicable_bound_says_why():
    fails = bound.Assumption("kappa < 1", False, -0.25, "kappa = 1.25")
    found = bound.Bound("some <bound>", float("nan"), {}, (fails,), "docs/theory.md section 3")
    assert "none" in repr(found) and "margin -0.25" in repr(found) and "docs/theory.md section 3" in repr(found)
    assert "inapplicable" in found._repr_latex_() and "&lt;bound&gt;" in found._repr_html_()
    nothing = Sharp(float("nan"), float("nan"), float("nan"), np.zeros((2, 2)), (fails,))
    assert "NaN" in repr(nothing) and "inapplicable" in repr(nothing)


def test_values_are_words():
    assert [number(x) for x in (0.09334, 2870.0, 65536.0, 1e9, -0.0, float("inf"), float("nan"))] == [
        "0.09334", "2870", "65536", "1e+09", "0", "inf", "NaN"
    ]  # fmt: skip
    assert spread(np.array([0.2, np.nan, 0.1])) == "0.1 to 0.2 (1 of 3 not finite)"
    assert (spread(np.array([])), spread(np.full(2, np.nan)), spread(3.0)) == ("none", "NaN", "3")
    assert spread(np.array([1.0, np.inf])) == "1 (1 of 2 not finite)" and spread(np.ones(2_000_000)) == "[2000000]"
    assert word(np.ones((3, 4))) == "[3, 4]" and word(jnp.ones((3, 4))) == "[3, 4]"
    assert word(sp.csr_array(np.eye(3))) == "[3, 3], 3 stored"
    assert word({"a": np.ones(3), "b": [np.ones((2, 2))]}) == "7 numbers in 2 arrays"
    assert word(np.array(True)) == "yes" and word(jax.random.key(0)) != ""
    assert len(word("long " * 99)) <= 64


# --- mathematics ----------------------------------------------------------------------------------------------------


def test_formulas_of_bounds_are_those_of_the_symbolic_twin(a):
    written = {
        sym.B_SUP: r"\lVert b\rVert_\infty", sym.GBAR: r"\bar\gamma", sym.B_D: r"\lVert b\rVert_d",
        sym.KAPPA_S: r"\kappa_S", sym.DISTANCE: r"\lVert\Pi\bar Q-\bar Q\rVert_d", sym.KAPPA_F: r"\kappa_F",
    }  # fmt: skip
    members = ladder.class_of(noise.tabular(a))
    for found in (scalar_gap_bound(a), scalar_gap_bound_d(a), class_error_bound(members)):
        expression, _ = sym.FORMULAS[found.name]
        assert found.formula == sympy.latex(expression, symbol_names=written)
        assert found.formula in found._repr_latex_()


def test_mathematics_is_typeset(a):
    laws = (planner.PowerLaw(1.0, 0.5, floor=0.1), planner.BitLaw(1.5), planner.SharpResidual(50.0))
    plan = planner.plan(0.5, *laws, planner.Costs(1.0, 1.0, 1e-3))
    shown = [*laws, plan, scalar_gap_bound(a), theorem.theorem(a, 1e-5, np.array([10]))]
    for x in shown:
        assert html.mathml(x._repr_latex_(), True)  # raises for LaTeX that cannot be typeset
    assert isinstance(sym.statement(), Latex) and sym.statement()._repr_latex_() == f"$${sym.statement()}$$"
    assert f"E_{{\\mathrm{{app}}}}({plan.width})" in plan._repr_latex_()
