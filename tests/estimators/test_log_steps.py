"""What agents do on a sampled environment is what their log says, and a diagnosis reads it."""

import jax
import numpy as np
import optax
import pytest

from estimators.logs.reader import read
from estimators.logs.steps import watch
from estimators.logs.writer import write
from icq.exact import analyse
from icq.sampled import fleet
from icq.sampled.environment import finite
from icq.sampled.fleet import CodeTable, FleetConfig
from icq.tasks import start_law
from icq_bounds.diagnosis.diagnosis import diagnose
from synthetic.cpu import Cpu, CpuSizes, cpu
from synthetic.routing import Routing, routing

pytestmark = pytest.mark.compiles

M = routing(Routing(2, 1).with_view(0)).smdp
A = analyse(M)
ENV = finite(M, start_law(M))
TABLE = CodeTable(M.num_agents, M.num_observations, M.num_options)
RANDOM = FleetConfig(copies=16, optimiser=optax.sgd(0.1), epsilon=(1.0, 1.0))


def state(env, s):
    return s


def test_a_log_of_codes(tmp_path):
    begun = fleet.init(ENV, TABLE, RANDOM, jax.random.key(0))
    log = watch(ENV, TABLE, RANDOM, begun, jax.random.key(1), 2000, state)
    assert len(log) == 32_000 and log.context is not None and log.features is None
    obs = np.asarray(M.observation)
    assert (log.observation == obs[log.context]).all() and (log.agent == np.asarray(M.agent)[log.observation]).all()
    assert (log.context[:1] == np.asarray(begun.states)[0]).all()
    onward = log.follows[1:]
    assert (~log.follows).sum() == RANDOM.copies
    assert (log.next_observation[:-1][onward] == log.observation[1:][onward]).all()
    assert (log.k[1:][log.done[:-1]] == 0).all() and np.isnan(log.scalar[log.done]).all()
    count = np.asarray(M.available).sum(1)
    assert log.probability == pytest.approx(1 / count[log.observation], rel=1e-6)
    write(log, tmp_path / "log.parquet")
    back, report = read(tmp_path / "log.parquet")
    assert report.faultless
    gap = diagnose(back).interface.gap
    assert gap.known and gap.interval[0] < A.norm_d_state(A.gap) < gap.interval[1]


def registers(env, machine):
    return machine.registers.reshape(-1)


def test_a_log_of_vectors(tmp_path):
    """Two agents may see the same numbers: the log tells them apart."""
    env: Cpu = cpu(CpuSizes(length=2, limit=5, own=1, tasks=("x + y",), starts=1))
    cls = fleet.view_network(env, 4)
    begun = fleet.init(env, cls, RANDOM, jax.random.key(0))
    log = watch(env, cls, RANDOM, begun, jax.random.key(1), 100, registers)
    assert log.features is not None and (log.features[log.observation, 0] == log.agent).all()
    views = log.features[:, 1:]
    assert len(np.unique(views, axis=0)) < len(views)
    write(log, tmp_path / "log.jsonl")
    back, report = read(tmp_path / "log.jsonl")
    assert report.faultless and len(back) == len(log) and back.context is not None
    assert back.features is not None and np.allclose(back.features[back.observation], log.features[log.observation])


def test_too_few_handoffs():
    begun = fleet.init(ENV, TABLE, RANDOM, jax.random.key(0))
    with pytest.raises(ValueError, match="handoffs = 0"):
        watch(ENV, TABLE, RANDOM, begun, jax.random.key(1), 0)
