"""The instance type: what it refuses and how it says so, defaults, batches, files."""

import io
import pickle
import re
import zipfile
from copy import copy
from dataclasses import fields

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import garnet, instances

from icq.smdp import ICSMDP, ICSMDPError, index, stack

pytestmark = pytest.mark.compiles

NAMES = [f.name for f in fields(ICSMDP)]


def arrays(**changes):
    """3 states, 2 options, 2 outcomes, 2 observations; option 1 is unavailable on observation 1 (state 2)."""
    out = {
        "prob": np.full((3, 2, 2), 0.5),
        "next_state": np.array([[[1, 2], [0, 1]], [[2, 0], [1, 1]], [[0, 2], [0, 0]]]),
        "duration": np.full((3, 2, 2), 2),
        "reward": np.linspace(-1, 1, 12).reshape(3, 2, 2),
        "terminal": np.zeros((3, 2, 2), bool),
        "observation": np.array([0, 0, 1]),
        "agent": np.array([0, 1]),
        "available": np.array([[True, True], [True, False]]),
        "gamma": np.array(0.9),
        "behaviour": np.array([[0.25, 0.75], [1.0, 0.0]]),
    }
    return out | changes


def changed(name, place, value):
    array = arrays()[name].astype(float)
    array[place] = value
    return arrays(**{name: array})


def same(one, other):
    return all(
        np.array_equal(getattr(one, n), getattr(other, n)) and getattr(one, n).dtype == getattr(other, n).dtype
        for n in NAMES
    )


def forged(m, **values):
    """A copy with fields set behind the back of any check at construction."""
    out = copy(m)
    for name, value in values.items():
        object.__setattr__(out, name, value)
    return out


BAD_VALUES = [
    ("prob", (1, 0, 1), 0.25, "prob[1, 0] = 0.75 is the row sum"),
    ("prob", (0, 1), [-0.5, 1.5], "prob[0, 1, 0] = -0.5 is negative"),
    ("prob", (2, 0, 0), np.nan, "prob[2, 0, 0] = nan is not finite"),
    ("prob", (2, 1, 0), np.inf, "prob[2, 1, 0] = inf is not finite"),
    ("reward", (1, 1, 1), -np.inf, "reward[1, 1, 1] = -inf is not finite"),
    ("gamma", (), np.nan, "gamma = nan is not finite"),
    ("gamma", (), 1.0, "gamma = 1.0 is not inside (0, 1)"),
    ("gamma", (), 0.0, "gamma = 0.0 is not inside (0, 1)"),
    ("gamma", (), -0.5, "gamma = -0.5 is not inside (0, 1)"),
    ("duration", (0, 1, 0), 0, "duration[0, 1, 0] = 0 is less than one"),
    ("duration", (0, 1, 1), -3, "duration[0, 1, 1] = -3 is less than one"),
    ("duration", (0, 0, 1), 1.5, "duration[0, 0, 1] = 1.5 is not an integer"),
    ("duration", (0, 0, 1), np.nan, "duration[0, 0, 1] = nan is not an integer"),
    ("duration", (0, 0, 1), 1e300, "duration[0, 0, 1] = 1e+300 is not an integer"),
    ("next_state", (2, 1, 0), 3, "next_state[2, 1, 0] = 3 is outside 0..2"),
    ("next_state", (1, 0, 0), -1, "next_state[1, 0, 0] = -1 is outside 0..2"),
    ("observation", 1, 2, "observation[1] = 2 is outside 0..1"),
    ("observation", 0, -1, "observation[0] = -1 is outside 0..1"),
    ("agent", 1, -2, "agent[1] = -2 is negative"),
    ("terminal", (0, 0, 1), 0.5, "terminal[0, 0, 1] = 0.5 is not true or false"),
    ("available", (1, 1), 2, "available[1, 1] = 2.0 is not true or false"),
    ("available", 1, False, "available[1]: the observation has no available option"),
    ("behaviour", (0, 0), 0.0, "behaviour[0, 0] = 0.0 must be positive"),
    ("behaviour", (0, 1), -0.1, "behaviour[0, 1] = -0.1 must be positive"),
    ("behaviour", 1, [0.5, 0.5], "behaviour[1, 1] = 0.5 must be 0"),
    ("behaviour", 0, [0.25, 0.5], "behaviour[0] = 0.75 is the row sum"),
    ("behaviour", (0, 1), np.nan, "behaviour[0, 1] = nan is not finite"),
]


@pytest.mark.parametrize(("name", "place", "value", "message"), BAD_VALUES)
def test_bad_values_name_field_index_and_value(name, place, value, message):
    with pytest.raises(ICSMDPError, match=re.escape(message)):
        ICSMDP.create(**changed(name, place, value))


def test_the_unchanged_fields_are_an_instance():
    assert same(ICSMDP.create(**arrays()), ICSMDP(**{k: v for k, v in arrays().items()}))


def test_first_bad_index_is_named():
    reward = np.zeros((3, 2, 2))
    reward[1, 1, 0] = reward[2, 0, 0] = np.nan
    with pytest.raises(ICSMDPError, match=re.escape("reward[1, 1, 0]")):
        ICSMDP.create(**arrays(reward=reward))


@given(instances(), st.sampled_from(["prob", "reward"]), st.data())
def test_one_nan_anywhere_is_found(m, name, data):
    array = getattr(m, name).copy()
    place = np.unravel_index(data.draw(st.integers(0, array.size - 1)), array.shape)
    array[place] = np.nan
    with pytest.raises(ICSMDPError, match=re.escape(f"{name}[{', '.join(map(str, place))}] = nan")):
        m.replace(**{name: array}).validate()


@pytest.mark.parametrize(
    ("name", "shape"),
    [(n, (*np.shape(v), 1)) for n, v in arrays().items()]
    + [(n, (np.shape(v)[0] + 1, *np.shape(v)[1:])) for n, v in arrays().items() if np.ndim(v) and n != "agent"],
)
def test_shapes_that_disagree(name, shape):
    with pytest.raises(ICSMDPError, match=r"^\w+: shape \(.*\), expected"):
        ICSMDP.create(**arrays(**{name: np.ones(shape)}))


def test_another_number_of_agents_than_observations_with_options():
    with pytest.raises(ICSMDPError, match=re.escape("available: shape (2, 2), expected (O, A) = (3, 2)")):
        ICSMDP.create(**arrays(agent=np.zeros(3, int), behaviour=None))


@pytest.mark.parametrize(("shape", "message"), [((0, 2, 2), "axis S is empty"), ((3, 2, 0), "axis B is empty")])
def test_empty_axes(shape, message):
    empty = {n: np.ones(shape) for n in ("prob", "next_state", "duration", "reward")}
    with pytest.raises(ICSMDPError, match=message):
        ICSMDP.create(**empty, observation=np.zeros(shape[0], int), agent=[0, 1], gamma=0.9)


@pytest.mark.parametrize("value", ["0.9", None, 0.9j, [[0.1], [0.1, 0.2]]])
def test_not_numbers(value):
    with pytest.raises(ICSMDPError, match=r"^gamma: "):
        ICSMDP.create(**arrays(gamma=value))


def test_padding_is_free():
    """Probabilities of an unavailable option need not be a law."""
    prob = arrays()["prob"]
    prob[2, 1] = [-4.0, 7.0]
    ICSMDP.create(**arrays(prob=prob))


def test_row_sums_may_be_off_by_rounding_only():
    prob = arrays()["prob"]
    prob[0, 0, 0] += 1e-12
    ICSMDP.create(**arrays(prob=prob))
    prob[0, 0, 0] += 1e-8
    with pytest.raises(ICSMDPError, match=r"prob\[0, 0\]"):
        ICSMDP.create(**arrays(prob=prob))


def test_defaults():
    kept = {k: v for k, v in arrays().items() if k not in ("terminal", "available", "behaviour")}
    m = ICSMDP.create(**kept)
    assert not m.terminal.any() and m.terminal.shape == (3, 2, 2)
    assert m.available.all() and m.available.shape == (2, 2)
    assert np.array_equal(m.behaviour, np.full((2, 2), 0.5))
    padded = ICSMDP.create(**kept, available=[[True, True], [False, True]])
    assert np.array_equal(padded.behaviour, [[0.5, 0.5], [0.0, 1.0]])


def test_lists_and_narrow_types_are_widened():
    narrow = {k: v.astype(np.int8) if v.dtype == int else v for k, v in arrays().items()}
    narrow |= {
        "terminal": narrow["terminal"].astype(int).tolist(),
        "gamma": np.float32(0.5),
        "next_state": [[[1.0, 2.0]] * 2] * 3,
    }
    m = ICSMDP.create(**narrow)
    assert m.duration.dtype == m.next_state.dtype == np.int64
    assert m.terminal.dtype == bool and m.gamma.dtype == np.float64


def test_sizes():
    m = ICSMDP.create(**arrays())
    assert (m.num_states, m.num_options, m.num_observations, m.num_agents) == (3, 2, 2, 2)


def test_stack_and_index():
    parts = [garnet(seed, gamma=0.5 + 0.1 * seed) for seed in range(3)]
    batch = stack(parts)
    assert batch.validate() is batch
    assert batch.prob.shape == (3, 12, 3, 3) and batch.gamma.shape == (3,)
    assert (batch.num_states, batch.num_options, batch.num_observations) == (12, 3, 6)
    assert all(same(index(batch, i), part) for i, part in enumerate(parts))
    with pytest.raises(ValueError, match="2 different shapes"):
        stack([garnet(0), garnet(0, states=13)])
    with pytest.raises(ValueError, match="stack"):
        stack([])


def test_a_bad_instance_of_a_batch_is_named():
    batch = stack([garnet(seed) for seed in range(3)])
    reward = batch.reward.copy()
    reward[2, 0, 1, 0] = np.nan
    with pytest.raises(ICSMDPError, match=re.escape("instance 2: reward[0, 1, 0] = nan")):
        batch.replace(reward=reward).validate()
    with pytest.raises(ICSMDPError, match=re.escape("gamma: shape (), expected a batch axis of length 3")):
        forged(batch, gamma=np.array(0.9)).validate()
    with pytest.raises(ICSMDPError, match=re.escape("observation: shape (2, 12), expected a batch axis of length 3")):
        forged(batch, observation=batch.observation[:2]).validate()


def test_vmap_over_a_stacked_instance():
    def expected_reward(m: ICSMDP):
        weight = m.behaviour[m.observation][:, :, None] * m.prob
        return (weight * m.reward).sum((1, 2)) * m.gamma

    parts = [garnet(seed, gamma=0.5 + 0.1 * seed) for seed in range(3)]
    with jax.enable_x64(True):
        batch = jax.tree.map(jnp.asarray, stack(parts))
        together = jax.jit(jax.vmap(expected_reward))(batch)
    for i, part in enumerate(parts):
        assert np.allclose(together[i], expected_reward(part), rtol=1e-12)


def test_instances_are_immutable():
    with pytest.raises(AttributeError):
        garnet(0).gamma = np.array(0.5)


@given(m=instances())
def test_npz_round_trip(tmp_path_factory, m):
    path = tmp_path_factory.mktemp("npz") / "m.npz"
    m.save(path)
    assert same(ICSMDP.load(path), m)
    with np.load(path) as archive:
        assert set(archive.files) == set(NAMES)


def test_hand_written_npz_gets_defaults(tmp_path):
    kept = {k: v for k, v in arrays().items() if k not in ("terminal", "available", "behaviour")}
    np.savez(tmp_path / "m.npz", **kept)
    assert same(ICSMDP.load(str(tmp_path / "m.npz")), ICSMDP.create(**kept))


@pytest.mark.parametrize("name", ["prob", "next_state", "duration", "reward", "observation", "agent", "gamma"])
def test_missing_key(tmp_path, name):
    np.savez(tmp_path / "m.npz", **{k: v for k, v in arrays().items() if k != name})
    with pytest.raises(ICSMDPError, match=f"^{name}: missing key"):
        ICSMDP.load(tmp_path / "m.npz")


def test_unknown_key(tmp_path):
    np.savez(tmp_path / "m.npz", **arrays(), discount=np.ones(3))
    with pytest.raises(ICSMDPError, match=r"^discount: unknown key; the keys are prob, next_state"):
        ICSMDP.load(tmp_path / "m.npz")


def test_bad_values_in_a_file_are_named(tmp_path):
    np.savez(tmp_path / "m.npz", **changed("duration", (0, 1, 0), 0))
    with pytest.raises(ICSMDPError, match=re.escape("duration[0, 1, 0] = 0")):
        ICSMDP.load(tmp_path / "m.npz")


class Bomb:
    """Runs code when it is unpickled."""

    exploded = False

    def __reduce__(self):
        return setattr, (Bomb, "exploded", True)


def test_pickles_are_refused_unopened(tmp_path):
    bomb = np.empty((3, 2, 2), object)
    bomb[:] = Bomb()
    np.savez(tmp_path / "object.npz", **arrays(reward=bomb))
    with pytest.raises(ICSMDPError, match="reward: holds Python objects"):
        ICSMDP.load(tmp_path / "object.npz")
    (tmp_path / "pickle.npz").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ICSMDPError, match=r"pickle\.npz: not an \.npz archive of plain arrays"):
        ICSMDP.load(tmp_path / "pickle.npz")
    assert not Bomb.exploded
    np.load(tmp_path / "pickle.npz", allow_pickle=True)
    assert Bomb.exploded  # the bomb was live


def archive_bytes():
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays(reward=np.random.default_rng(0).normal(size=(3, 2, 2))))
    return buffer.getvalue()


def written(folder, data):
    (folder / "m.npz").write_bytes(data)
    return folder / "m.npz"


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.6, 0.9, 0.99])
def test_truncated_files(tmp_path, share):
    data = archive_bytes()
    path = written(tmp_path, data[: int(share * len(data))])
    with pytest.raises(ICSMDPError, match=r"m\.npz: not "):
        ICSMDP.load(path)


def test_corrupted_bytes_never_pass_silently(tmp_path):
    data = archive_bytes()
    whole = ICSMDP.load(written(tmp_path, data))
    refused = 0
    for place in range(0, len(data), 7):
        broken = bytearray(data)
        broken[place] ^= 0xFF
        try:
            read = ICSMDP.load(written(tmp_path, bytes(broken)))
        except ICSMDPError:
            refused += 1
        else:
            assert same(read, whole)  # a byte that carries nothing, such as a time stamp
    assert refused > 100


def test_other_files(tmp_path):
    path = tmp_path / "other.npz"
    np.save(tmp_path / "one.npy", np.ones(3))
    with pytest.raises(ICSMDPError, match="a single array"):
        ICSMDP.load(tmp_path / "one.npy")
    path.write_text("prob = 1")
    with pytest.raises(ICSMDPError, match=r"not an \.npz"):
        ICSMDP.load(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("prob", "text")
    with pytest.raises(ICSMDPError):
        ICSMDP.load(path)
    with pytest.raises(FileNotFoundError):
        ICSMDP.load(tmp_path / "absent.npz")
