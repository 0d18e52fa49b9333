"""Function classes, optimisers and bounds of others work without a change to the packages."""

from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import struct
from jaxtyping import Array, Float, Int

from bounds.approximation.class_error import class_fixed_point, projected_certificate
from bounds.approximation.classes import LinearClass, linear_class
from bounds.core.bound import Verdict, below, conditional
from bounds.core.term import Rung
from bounds.theorem import Theorem, theorem
from estimators.decomposition import TERMS
from icq.exact import Analysis, analyse
from icq.learn import classes, sampling
from icq.learn.classes import FunctionClass
from icq.learn.learner import LearnerConfig, learn
from icq_bounds.sweep.cells import learn_and_measure
from icq_bounds.sweep.measure import OUTPUTS
from icq_bounds.sweep.methods import Method, Reference
from icq_bounds.sweep.results import statements, violations
from synthetic.dials import Dials, Shape, dials_instance
from synthetic.topology import complete

pytestmark = pytest.mark.compiles

HOW = LearnerConfig(step=0.2, decay_power=0.6, decay_offset=100.0, averaging_power=1.0)
SEEDS, TIMES = 3, (50, 400)


@pytest.fixture(scope="module")
def a() -> Analysis:
    return analyse(dials_instance(Shape(complete(2)), Dials(gap=0.5)))


# --- a function class -----------------------------------------------------------------------------------------------


@struct.dataclass
class Additive:
    """Q(o, a) = base(o) + bonus_i(a)."""

    slot: Int[Array, "O"]
    rank: Int[Array, "O"]
    agents: int = struct.field(pytree_node=False)
    options: int = struct.field(pytree_node=False)

    @property
    def num_slots(self) -> int:
        return self.agents

    def init(self, key):
        return {
            "base": jnp.zeros((self.agents, self.slot.shape[0])),
            "bonus": jnp.zeros((self.agents, self.options)),
        }

    def values(self, block, observation) -> Float[Array, "A"]:
        return block["base"][self.rank[observation]] + block["bonus"]


def additive(m) -> Additive:
    rank = jnp.asarray(classes.local_rank(m), jnp.int32)
    return Additive(jnp.asarray(m.agent, jnp.int32), rank, m.num_agents, m.num_options)


def additive_features(m) -> Float[np.ndarray, "O A p"]:
    """The same class as features."""
    size, options = m.num_observations, m.num_options
    base = np.repeat(np.eye(size)[classes.local_rank(m)][:, None], options, axis=1)
    return np.concatenate([base, np.tile(np.eye(options), (size, 1, 1))], axis=2)


@dataclass(frozen=True)
class WithClass:
    """A method of learning, complete: either form of the class."""

    as_features: bool

    def build(self, a: Analysis) -> FunctionClass:
        m = a.smdp
        return classes.linear(m, additive_features(m).astype(np.float32)) if self.as_features else additive(m)

    def config(self, a: Analysis, iid: bool) -> LearnerConfig:
        return replace(HOW, iid=iid)

    def members(self, a: Analysis) -> LinearClass:
        return linear_class(a, additive_features(a.smdp))

    def reference(self, a, cls, keys) -> Reference:
        found = class_fixed_point(self.members(a))
        return Reference(found.q[None], found.error, found.error, found.converged)

    def population(self, a, cls) -> None:
        return None

    def certify(self, a, cls, q_f):
        return partial(projected_certificate, self.members(a))


def test_a_function_class_of_ones_own_is_learned_measured_and_certified(a):
    assert isinstance(additive(a.smdp), FunctionClass) and isinstance(WithClass(False), Method)
    own, known = (learn_and_measure(a, WithClass(kind), SEEDS, TIMES, False) for kind in (False, True))
    shape = (len(OUTPUTS), SEEDS, len(TIMES))
    assert own["observed_residual"].shape == shape and (own["observed_residual"] > 0).all()
    for name in (*(f"observed_{term}" for term in TERMS), "value"):
        np.testing.assert_allclose(own[name], known[name], rtol=1e-4, atol=1e-6, err_msg=name)
    apart = own["observed_approximation"]
    assert apart == pytest.approx(known["observed_approximation"]) and apart.min() > 1e-3
    assert violations([own, known]) == 0
    for term in ("approximation", "residual", "total"):
        assert statements([own], "certificate", term).applicable.all(), term
    assert statements([own], "bound", "interface").applicable.all()
    assert not statements([own], "bound", "residual").applicable.any()  # nobody knows that this class is linear
    assert statements([known], "bound", "approximation").applicable.all()


def test_what_is_not_a_function_class_is_seen():
    class NoValues:
        slot = np.zeros(1, int)
        num_slots = 1

        def init(self, key):
            return jnp.zeros((1, 1))

    assert not isinstance(NoValues(), FunctionClass)


# --- an optimiser ---------------------------------------------------------------------------------------------------


def heavy_ball(decay: float) -> optax.GradientTransformation:
    def update(gradient, velocity, block=None):
        velocity = jax.tree.map(lambda g, v: g + decay * v, gradient, velocity)
        return velocity, velocity

    return optax.GradientTransformation(partial(jax.tree.map, jnp.zeros_like), update)


def test_an_optimiser_of_ones_own_follows_the_known_one(a):
    def table(optimiser) -> Float[np.ndarray, "R K O A"]:
        how = replace(HOW, optimiser=optimiser)
        record = learn(sampling.tables(a), classes.tabular(a.smdp), how, range(SEEDS), TIMES)
        return np.asarray(record.q)

    own, known = table(heavy_ball(0.5)), table(optax.trace(0.5))
    np.testing.assert_allclose(own, known, rtol=1e-5, atol=1e-6)
    assert np.isfinite(own).all() and np.abs(own[:, 0] - own[:, 1]).max() > 1e-2


# --- a bound --------------------------------------------------------------------------------------------------------


def with_rung(found: Theorem, factor: float, holds: bool = True) -> Theorem:
    """The theorem with a bound that is `factor` times what is observed."""
    seen = found.interface.observed.value
    assumption = below("mine", 0.0 if holds else 2.0, 1.0, "an assumption of one's own")
    mine = conditional(
        "mine", [assumption], lambda: (factor * seen, {}), "a page of one's own", found.interface.trivial
    )
    return replace(found, interface=replace(found.interface, rungs=(*found.interface.rungs, Rung(mine))))


def test_a_bound_of_ones_own_enters_the_theorem(a):
    found = theorem(a, 1, np.array([1000]))
    before, seen = found.interface.best, found.interface.observed.value
    assert before.name != "mine" and before.value > 1.001 * seen

    tight = with_rung(found, 1.0005)
    mine = tight.interface.best
    assert mine.name == "mine" and tight.interface.verdict(mine) is Verdict.HOLDS
    assert "mine" in str(tight) and "mine" in tight.assumptions

    assert with_rung(found, 1e6).interface.best == before
    failing = with_rung(found, 1.0, holds=False).interface
    assert failing.best == before and failing.verdict(failing.rungs[-1].bound) is Verdict.INAPPLICABLE
    broken = with_rung(found, 0.5).interface
    assert broken.verdict(broken.best) is Verdict.VIOLATED
