"""The learner's loop written by hand in C, numba, NumPy and PyTorch: what people use today, and how fast it could be.

All are tabular IC-Q, or a one-hidden-layer tanh network per agent, along one Markov trajectory with one handoff per
update, float32, constant step, and the plain average of the iterates kept lazily, as the learner keeps it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numba
import numpy as np

from benchmarks.harness import compiled_c
from benchmarks.reference_numba import tabular
from icq.learn.sampling import Tables

SOURCE = Path(__file__).with_name("learner.c")
SEED = 88172645463325252


def _address(x: np.ndarray) -> ctypes.c_void_p:
    return x.ctypes.data_as(ctypes.c_void_p)


@dataclass(frozen=True)
class Instance:
    """Sampling tables as C-ordered NumPy arrays, and the encoded observations."""

    accept: np.ndarray
    alias: np.ndarray
    next_state: np.ndarray
    reward: np.ndarray
    discount: np.ndarray
    cumulative: np.ndarray
    observation: np.ndarray
    available: np.ndarray
    agent: np.ndarray
    inputs: np.ndarray

    @classmethod
    def of(cls, t: Tables, agent: Any, inputs: Any) -> Instance:
        """From an instance's tables."""

        def array(x: Any, kind: type) -> np.ndarray:
            return np.ascontiguousarray(np.asarray(x, kind))

        return cls(
            accept=array(t.accept, np.float32), alias=array(t.alias, np.int32),
            next_state=array(t.next_state, np.int32), reward=array(t.reward, np.float32),
            discount=array(t.discount, np.float32), cumulative=array(t.cumulative_behaviour, np.float32),
            observation=array(t.observation, np.int32), available=array(t.available, np.uint8),
            agent=array(agent, np.int32), inputs=array(inputs, np.float32),
        )  # fmt: skip


class _CTables(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_void_p)
        for name in ("accept", "reward", "discount", "cumulative", "alias", "next_state", "observation", "agent",
                     "available")
    ]  # fmt: skip


def in_c(m: Instance, handoffs: int, step: float, width: int = 0) -> Callable[[], np.ndarray] | None:
    """The C loop, tabular for width 0; returns Q or the parameters.  None where there is no compiler."""
    states, options, outcomes = m.accept.shape
    sizes = {"STATES": states, "OPTIONS": options, "OUTCOMES": outcomes, "INPUTS": m.inputs.shape[1]}
    library = compiled_c(SOURCE, **sizes, **({"WIDTH": width} if width else {}))
    if library is None:
        return None
    loaded = ctypes.CDLL(str(library))
    tables = _CTables(*[_address(getattr(m, name)) for name, _ in _CTables._fields_])
    visits = np.zeros(m.cumulative.shape, np.float32)
    common = ctypes.c_int32(handoffs), ctypes.c_float(step), ctypes.c_uint64(SEED)

    def table() -> np.ndarray:
        q, average = np.zeros_like(visits), np.zeros_like(visits)
        touched = np.zeros(len(q), np.int32)
        loaded.tabular(
            ctypes.byref(tables), *common, _address(q), _address(average), _address(touched), _address(visits)
        )
        return q

    def network() -> np.ndarray:
        params = initial(m, width)
        average, touched = params.copy(), np.zeros(len(params), np.int32)
        loaded.network(ctypes.byref(tables), _address(m.inputs), *common, _address(params), _address(average),
                       _address(touched), _address(visits))  # fmt: skip
        return params

    return network if width else table


def initial(m: Instance, width: int) -> np.ndarray:
    """Uniform weights, zero biases [agents, size]; layout as in learner.c."""
    rng = np.random.default_rng(0)
    agents, inputs, options = int(m.agent.max()) + 1, m.inputs.shape[1], m.accept.shape[1]
    first = rng.uniform(-1, 1, (agents, inputs * width)) * np.sqrt(3 / inputs)
    second = rng.uniform(-1, 1, (agents, options * width)) * np.sqrt(3 / width)
    parts = [first, np.zeros((agents, width)), second, np.zeros((agents, options))]
    return np.ascontiguousarray(np.concatenate(parts, axis=1).astype(np.float32))


def draw(m: Instance, rng: np.random.Generator, s: int) -> tuple[int, int, int, int, float, float]:
    """(o, a, next state, next observation, reward, discount) in plain NumPy."""
    u = rng.random(3)
    o = m.observation[s]
    a = int((u[0] >= m.cumulative[o]).sum())
    b = int(u[1] * m.accept.shape[2])
    if u[2] >= m.accept[s, a, b]:
        b = m.alias[s, a, b]
    s_next = m.next_state[s, a, b]
    return o, a, s_next, m.observation[s_next], m.reward[s, a, b], m.discount[s, a, b]


def in_numpy(m: Instance, handoffs: int, step: float) -> np.ndarray:
    """The tabular loop a researcher writes."""
    rng, s = np.random.default_rng(0), 0
    q = np.zeros(m.cumulative.shape, np.float32)
    average, visits, touched = np.zeros_like(q), np.zeros_like(q), np.zeros(len(q), np.int64)
    available = m.available.astype(bool)
    for k in range(handoffs):
        o, a, s, o_next, reward, discount = draw(m, rng, s)
        scalar = q[o_next][available[o_next]].max()
        share = 1 - touched[o] / max(k, 1)
        average[o] += share * (q[o] - average[o])
        touched[o] = k
        q[o, a] += step * (reward + discount * scalar - q[o, a])
        visits[o, a] += 1
    return q


def in_torch(m: Instance, handoffs: int, step: float, width: int) -> Callable[[], Any] | None:
    """One network per agent, autograd and SGD, as one writes it in PyTorch.  None where it is not installed."""
    try:
        import torch
    except ImportError:
        print("PyTorch not installed: its loop is left out of the comparison")
        return None
    torch.set_num_threads(1)
    inputs, available = torch.from_numpy(m.inputs), torch.from_numpy(m.available.astype(bool))
    sizes = m.inputs.shape[1], m.accept.shape[1]

    def run() -> Any:
        torch.manual_seed(0)
        nets = [
            torch.nn.Sequential(torch.nn.Linear(sizes[0], width), torch.nn.Tanh(), torch.nn.Linear(width, sizes[1]))
            for _ in range(int(m.agent.max()) + 1)
        ]
        sgd = [torch.optim.SGD(net.parameters(), lr=step) for net in nets]
        mean = [[p.detach().clone() for p in net.parameters()] for net in nets]
        touched, rng, s = [0] * len(nets), np.random.default_rng(0), 0
        for k in range(handoffs):
            o, a, s, o_next, reward, discount = draw(m, rng, s)
            i, j = m.agent[o], m.agent[o_next]
            with torch.no_grad():
                scalar = nets[j](inputs[o_next])[available[o_next]].max()
                share = 1 - touched[i] / max(k, 1)
                for average, p in zip(mean[i], nets[i].parameters(), strict=True):
                    average += share * (p - average)
                touched[i] = k
            loss = 0.5 * (float(reward) + float(discount) * scalar - nets[i](inputs[o])[a]) ** 2
            sgd[i].zero_grad()
            loss.backward()
            sgd[i].step()
        return nets

    return run


def in_numba(m: Instance, handoffs: int, step: float) -> Callable[[], np.ndarray]:
    """The tabular C loop in numba."""
    run = numba.njit(fastmath=True)(tabular)
    fields = (m.accept, m.alias, m.next_state, m.reward, m.discount, m.cumulative, m.observation, m.available)
    return lambda: run(handoffs, np.float32(step), np.uint64(SEED), *fields)
