"""One call learns, measures, bounds and certifies; bounds and certificates are never mixed."""

from dataclasses import replace
from functools import cache

import matplotlib as mpl
import numpy as np
import pytest

import icq_bounds as ib
from bounds.core.bound import Bound, Certificate, Verdict
from estimators.decomposition import TERMS
from icq.exact import analyse
from icq.learn.sampling import tables
from icq_bounds.check import grid
from icq_bounds.sweep.cells import learn_and_measure
from icq_bounds.sweep.dataset import CODES

pytestmark = pytest.mark.compiles

LEARNERS = {
    "table": ib.table,
    "features": lambda: ib.features(2),
    "constant": lambda: ib.table(step=0.01, decay_power=0.0, averaging_power=0.0),
    "global": lambda: ib.table("global", "single"),
    "network": lambda: ib.network(4, reference_iterations=50),
}


@cache
def model():
    return ib.dials(agents=2, clusters=2, gap=0.5)


@cache
def check(name, iid=False):
    return ib.verify(model(), 2000, 3, LEARNERS[name](), iid=iid, checkpoints=[500, 2000])


@pytest.mark.parametrize("name", LEARNERS)
def test_every_number_holds_or_says_why_there_is_none(name):
    for row in check(name).terms.values():
        for bound, verdict in ((row.bound, row.bound_verdict), (row.certificate, row.certificate_verdict)):
            assert verdict is not Verdict.VIOLATED
            assert (verdict is Verdict.INAPPLICABLE) == bool(bound.failures) == np.isnan(bound.value)
            if bound.applicable and verdict is Verdict.HOLDS:
                assert bound.value + bound.roundoff + 1e-9 >= row.observed.value


@pytest.mark.parametrize("name", LEARNERS)
def test_three_lines_and_a_table(name):
    said, page = repr(check(name)), check(name)._repr_html_()
    assert len(said.splitlines()) == 3
    assert [line.split()[0] for line in said.splitlines()] == ["observed", "bound", "certificate"]
    assert max(map(len, said.splitlines())) <= 118
    assert page.count("<tr>") == 5 and all(term in page for term in TERMS)


def failures(name, term="residual", **more):
    return {x.name for x in check(name, **more).terms[term].bound.failures}


def test_what_the_theorem_does_not_speak_of_has_no_bound():
    assert failures("network") == {"linear class", "plain updates"}
    assert failures("network", "approximation") == {"linear class"}
    assert failures("network", "total") >= failures("network")
    assert failures("global") == {"small corrections"}, "a first step of 1 is too large"
    assert "plain updates fails (an optimiser scales the updates)" in check("network")._repr_html_()


@pytest.mark.parametrize("name", ["table", "features", "constant"])
@pytest.mark.parametrize("iid", [False, True])
def test_what_it_speaks_of_has_one_at_every_time(name, iid):
    found = check(name, iid)
    assert failures(name, iid=iid) == failures(name, "total", iid=iid) == set()
    ds = found.to_dataset().sel(term="residual")
    assert np.isfinite(ds["bound"]).all() and np.isfinite(ds["predicted"]).all()
    assert (ds["bound_verdict"] != CODES["violated"]).all()
    terms = found.terms["residual"].bound.terms
    assert terms["path"] > 0 and terms["fluctuation"] > 0 and 0 < terms["rounding"] < 1e-9


def test_what_says_nothing_is_vacuous_and_never_above_the_trivial_number():
    """A table that starts in range and steps by less than a visit stays in range."""
    wild = ib.verify(model(), 2000, 3, ib.table(step=0.1, decay_power=0.0), checkpoints=[500, 2000])
    assert wild.terms["residual"].bound_verdict is Verdict.VACUOUS
    for term in ("residual", "total"):
        assert wild.terms[term].bound.value == wild.terms[term].bound.trivial
    single = ib.verify(model(), 2000, 3, ib.table(precision="single", step=0.1, decay_power=0.0))
    row = single.terms["residual"]
    assert row.bound.value > row.bound.trivial, "rounding may lead out of the range"
    assert row.bound_verdict is Verdict.VACUOUS


@pytest.mark.parametrize("name", LEARNERS)
def test_bounds_and_certificates_are_two_types(name):
    for row in check(name).terms.values():
        assert type(row.bound) is Bound and type(row.certificate) is Certificate


def test_no_learned_table_certifies_the_interface():
    assert check("table").terms["interface"].certificate_verdict is Verdict.INAPPLICABLE
    assert check("table").terms["interface"].bound_verdict is Verdict.HOLDS


def test_the_dataset_has_every_number_with_its_unit():
    ds = check("features").to_dataset()
    assert dict(ds.sizes) == {"term": 4, "output": 2, "replica": 3, "checkpoint": 2}
    assert ds["observed"].dims == ds["certificate"].dims == ("term", "output", "replica", "checkpoint")
    assert ds["bound"].dims == ("term", "output", "checkpoint")
    assert all({"units", "long_name"} <= set(v.attrs) for v in ds.variables.values())
    last = ds.sel(term="residual", output="average").isel(checkpoint=-1)
    row = check("features").terms["residual"]
    assert np.sqrt((last["observed"] ** 2).mean()) == pytest.approx(row.observed.value)
    assert np.sqrt((last["certificate"] ** 2).mean()) == pytest.approx(row.certificate.value)
    assert ds.equals(check("features").to_dataset()) and ds is not check("features").to_dataset()


def test_the_dataset_agrees_with_a_sweep_cell():
    cell = learn_and_measure(ib.analyse(model()), ib.features(2), 3, [500, 2000], False)
    ds = check("features").to_dataset()
    for term in TERMS:
        for name in ("observed", "certificate", "bound"):
            assert np.array_equal(ds[name].sel(term=term), cell[f"{name}_{term}"], equal_nan=True)


def test_it_draws_itself():
    with mpl.rc_context({"backend": "agg"}):
        ax = check("features").plot()
        names = {text.get_text() for text in ax.figure.findobj(mpl.text.Text)}
        assert {"interface gap", "approximation", "residual", "total"} <= names
        other = ax.figure.add_subplot()
        assert check("table").plot(other) is other
        assert "approximation is 0" in other.get_title(loc="left")
        vacuous = ib.verify(model(), 2000, 3, ib.table(step=0.1, decay_power=0.0)).plot()
        assert "vacuous bound" in vacuous.get_title(loc="left")


def test_learn_gives_the_tables_that_are_verified():
    record = ib.learn(model(), seeds=3, learner=ib.features(2), checkpoints=[500, 2000])
    errors, _ = ib.decompose(ib.analyse(model()), record.q_average, 0 * ib.analyse(model()).q_bar)
    observed = check("features").to_dataset()["observed"].sel(term="total", output="average")
    assert np.array_equal(errors.total, observed)
    assert tables(model()).available.shape == record.q.shape[2:]


def test_checkpoints_double_up_to_the_last_handoff():
    assert grid(100) == (1, 3, 6, 12, 25, 50, 100) and grid(3) == (1, 3) and grid(1, [5]) == (5,)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [({"handoffs": 0}, "handoffs = 0"), ({"seeds": 1}, "seeds = 1 must be at least 2"),
     ({"checkpoints": [5, 3]}, "checkpoints")],
)  # fmt: skip
def test_numbers_outside_their_range_are_refused(arguments, says):
    with pytest.raises((ValueError, TypeError), match=says):
        ib.verify(model(), **arguments)


@pytest.mark.parametrize("make", [lambda: ib.features(0), lambda: ib.network(0), lambda: ib.table(step=-1.0)])
def test_learners_refuse_what_cannot_learn(make):
    with pytest.raises(ValueError, match="must be"):
        make()


def test_a_diverged_run_has_no_certificate():
    wild = ib.verify(model(), 2000, 3, ib.table("global", step=1e30, decay_power=0.0), checkpoints=[500, 2000])
    assert wild.terms["residual"].certificate_verdict is Verdict.INAPPLICABLE
    assert "finite table" in repr(wild) and wild.plot()


def test_the_next_run_is_below_the_largest_certificate_with_a_known_probability():
    """Of every four runs one has the largest error: the other three say nothing wrong of it three times in four."""
    c = check("table")
    said = c.next_run()
    each = c.records.certificate.sel(term="total", output="average").isel(checkpoint=-1).values
    assert said.at_most == each.max() and said.probability == 0.75
    with pytest.raises(ValueError, match="term = 'interface' has no certificate; choose one of approximation"):
        c.next_run("interface")
    lost = replace(c, records=c.records.copy(deep=True))
    lost.records.certificate.loc[{"term": "total", "replica": 1}] = np.nan
    assert lost.next_run().at_most == np.inf
    assert said.killed.value == 0.0 and said.killed.interval == pytest.approx((0.0, 1 - 0.025 ** (1 / 3)))
    a = analyse(model())
    q = np.asarray(ib.learn(model(), 200, 400, ib.table(), checkpoints=[200]).q_average[:, 0], np.float64)
    errors = np.array([a.norm_d_state(a.lift(table) - a.q_star) for table in q]).reshape(100, 4)
    missed = (errors[:, 3] > errors[:, :3].max(axis=1)).sum()
    assert 10 <= missed <= 42, "a quarter of a hundred, four standard errors either way"
