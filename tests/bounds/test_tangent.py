"""docs/theory.md section 4: neural tangent classes and what finite width adds."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from broken import caught, never_violated, shrunk
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.flatten_util import ravel_pytree
from strategies import garnet, instances

from bounds.approximation import class_error as approx
from bounds.approximation import tangent
from icq.exact import analyse

pytestmark = pytest.mark.compiles

seeds = st.integers(0, 2**32 - 1)
WIDTH, OPTIONS, AGENTS = 5, 3, 2
SHAPE = {"states": 6, "options": OPTIONS, "alias": 0.4, "agents": AGENTS}  # one shape, so that JAX compiles once


def network(block, observation):
    """One hidden tanh layer on a fixed two-dimensional encoding of the observation."""
    angle = observation.astype(jnp.float32)
    hidden = jnp.tanh(block["inner"] @ jnp.stack([jnp.cos(angle), jnp.sin(angle)]) + block["bias"])
    return block["outer"] @ hidden


def affine(block, observation):
    """Linear in its parameters: its tangent class is itself."""
    return block["table"][observation % 2] + 0.5


def parameters(seed, slots, scale=1.0):
    rng = np.random.default_rng(seed)
    shapes = {"inner": (slots, WIDTH, 2), "bias": (slots, WIDTH), "outer": (slots, OPTIONS, WIDTH)}
    return {name: jnp.asarray(scale * rng.normal(size=shape), jnp.float32) for name, shape in shapes.items()}


def moved(params, seed, size):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: x + jnp.asarray(size * rng.normal(size=x.shape), jnp.float32), params)


def slots(a):
    return np.asarray(a.smdp.agent)


@given(instances(**SHAPE), seeds)
@settings(max_examples=5)
def test_features_are_the_jacobian_of_the_own_block(m, seed):
    """Central differences in float64 NumPy, one parameter at a time; another agent's block changes nothing."""
    a, params = analyse(m), parameters(seed, m.num_agents)
    start = tangent.linearise(network, params, slots(a))

    def values(flat, o):
        bias, rest = flat[:WIDTH], flat[WIDTH:]  # leaves in alphabetical order: bias, inner, outer
        inner, outer = rest[: 2 * WIDTH].reshape(WIDTH, 2), rest[2 * WIDTH :].reshape(OPTIONS, WIDTH)
        return outer @ np.tanh(inner @ [np.cos(o), np.sin(o)] + bias)

    for o in range(m.num_observations):
        theta = start.parameters[m.agent[o]]
        np.testing.assert_allclose(start.values[o], values(theta, o), atol=1e-5)
        for j in range(len(theta)):
            step = 1e-6 * np.eye(len(theta))[j]
            slope = (values(theta + step, o) - values(theta - step, o)) / 2e-6
            np.testing.assert_allclose(start.features[o, :, j], slope, atol=1e-4)


@given(instances(**SHAPE), seeds)
@settings(max_examples=10)
def test_linearisation_error_is_of_second_order(m, seed):
    a, params = analyse(m), parameters(seed, m.num_agents)
    start = tangent.linearise(network, params, slots(a))

    def drift(*sizes):
        return tangent.largest_linearisation_error(a, network, start, [moved(params, 1, s) for s in sizes], slots(a))

    assert drift(0.0) <= 1e-6
    assert drift(0.02) <= 0.1 * drift(0.2) + 1e-5
    assert drift(0.02, 0.2) == drift(0.2, 0.02) == max(drift(0.02), drift(0.2))


def tangent_of(a, seed):
    params = parameters(seed, a.smdp.num_agents, 0.7)
    start = tangent.linearise(network, params, slots(a))
    return params, start, tangent.tangent_class(a, start, slots(a))


@given(instances(**SHAPE, max_duration=(2, 8), gamma=(0.3, 0.9)), seeds, st.sampled_from([0.0, 0.01, 0.3]))
def test_network_bounds(m, seed, size):
    a = analyse(m)
    params, start, members = tangent_of(a, seed)
    p = tangent.perturbation(a, network, start, moved(params, seed, size), slots(a))
    finite, total = tangent.network_class_bound(members, p), tangent.network_error_bound(members, p)
    assert finite.applicable == total.applicable == (members.modulus < 1)
    if not finite.applicable:
        return
    eps = 1e-9 * (1 + approx.trivial_error(a) + finite.value)
    q_f = approx.class_fixed_point(members)
    assert a.norm_d(p.q - q_f.q) <= finite.value + q_f.error + eps
    assert a.norm_d(p.q - a.q_bar) <= total.value + eps
    direct = approx.projected_certificate(members, p.q)
    assert direct.value <= finite.value + eps, "the split costs, it never gains"
    assert direct.terms["epsilon"] <= p.linearisation + eps
    assert direct.terms["eta"] <= (p.stationarity + p.semi_gradient) * (1 + 1e-6) + eps
    if size == 0.0:
        assert p.semi_gradient <= eps and p.linearisation <= 1e-6


@given(instances(**SHAPE, max_duration=(2, 8), gamma=(0.3, 0.9)), seeds)
@settings(max_examples=10)
def test_a_linear_model_at_its_fixed_point_has_no_perturbation(m, seed):
    """Solve for theta, hand it to the model: every term is 0 up to the model's single precision."""
    a = analyse(m)
    table = jnp.asarray(np.random.default_rng(seed).normal(size=(m.num_agents, 2, OPTIONS)), jnp.float32)
    start = tangent.linearise(affine, {"table": table}, slots(a))
    members = tangent.tangent_class(a, start, slots(a))
    if members.modulus >= 0.95:
        return
    q_f = approx.class_fixed_point(members).q
    theta = np.asarray(table, np.float64).copy()
    for o, option in np.argwhere(a.interface.available):
        theta[m.agent[o], o % 2, option] = q_f[o, option] - 0.5
    p = tangent.perturbation(a, affine, start, {"table": jnp.asarray(theta, jnp.float32)}, slots(a))
    assert max(p.linearisation, p.stationarity, p.semi_gradient) <= 1e-5 * (1 + np.abs(theta).max())


def at_class_fixed_point(a, params, start, q_f):
    """The network at the smallest parameters whose linear model is Q_F: what training would look for."""
    theta = start.parameters.copy()
    for i in range(len(theta)):
        rows = a.interface.available & (slots(a) == i)[:, None]
        theta[i] += np.linalg.lstsq(start.features[rows], (q_f - start.values)[rows], rcond=None)[0]
    _, unravel = ravel_pytree(jax.tree.map(lambda x: x[0], params))
    return jax.vmap(unravel)(jnp.asarray(theta, jnp.float32))


@cache
def candidates():
    sizes = {"states": 6, "options": OPTIONS, "observations": 4, "agents": AGENTS, "max_duration": 5}
    return tuple(analyse(garnet(seed, **sizes, gamma=0.6)) for seed in range(12))


@cache
def trained(index):
    """Networks at the solution of their tangent class, and every third one far from it; None without that solution."""
    a = candidates()[index]
    params, start, members = tangent_of(a, index)
    if members.modulus >= 1:
        return None
    q_f = approx.class_fixed_point(members)
    far, near = moved(params, index, 0.5), at_class_fixed_point(a, params, start, q_f.q)
    p = tangent.perturbation(a, network, start, far if index % 3 == 0 else near, slots(a))
    return members, p, q_f


def usable():
    return [(a, t) for i, a in enumerate(candidates()) if (t := trained(i)) is not None]


BOUNDS = {
    "class": (tangent.network_class_bound, lambda a, p, q_f: a.norm_d(p.q - q_f.q)),
    "error": (tangent.network_error_bound, lambda a, p, q_f: a.norm_d(p.q - a.q_bar)),
}


@pytest.mark.parametrize("name", BOUNDS)
def test_the_verifier_passes_the_network_bound_and_catches_a_lost_term(name):
    claim, observe = BOUNDS[name]
    pairs = usable()
    assert len(pairs) >= 3
    look = {id(a): t for a, t in pairs}
    over = tuple(a for a, _ in pairs)

    def intact(a):
        return claim(*look[id(a)][:2])

    def observed(a):
        _, p, q_f = look[id(a)]
        return observe(a, p, q_f)

    assert never_violated(intact, observed, lambda a: look[id(a)][2].error + a.interface_solution.error, over)
    for kept in ("linearisation", "stationarity", "semi_gradient"):
        assert caught(lambda a, kept=kept: only(intact(a), kept), observed, over=over), f"{kept} alone was accepted"


def only(bound, part):
    """The claim with one of the three perturbations kept and nothing else."""
    return shrunk(bound, bound.terms[part] / bound.value) if bound.value > 0 else bound
