"""Whether runs keep to what the theorem for networks allows them (docs/theory.md section 5e)."""

from __future__ import annotations

import math

import jax
import numpy as np
from jaxtyping import Float

from bounds.network.kernel import bends, kernel, relative, turning
from bounds.network.run import NetworkRun, Piece, Stage
from icq.learn.classes import Params


def shares(run: NetworkRun, params: Params, tables: Float[np.ndarray, "R K O A"]) -> Float[np.ndarray, "R K"]:
    """The largest share of what it may do that each run has used at run.times: above 1 it is killed.

    Of four limits: the kernel's distance from the one in use, the table's from the reference, and how much a step there
    turns the kernel and bends the table, both by their derivatives.  params: leaves [R, K, slots, ...].  Infinite for a
    table that is not finite.
    """
    runs, count = tables.shape[:2]
    reference = np.concatenate([p.reference for p in run.pieces])
    out = np.full((runs, count), np.inf)
    for k, time in enumerate(run.times.tolist()):
        stage, piece = _where(run, time)
        for r in range(runs):
            away = float(np.abs(tables[r, k].reshape(-1)[run.live] - reference[k]).max())
            if math.isfinite(away):
                out[r, k] = max(away / piece.reach, *_drifts(run, stage, piece, _at(params, r, k)))
    return out


def _at(params: Params, r: int, k: int) -> Params:
    return jax.tree.map(lambda leaf: leaf[r, k], params)


def _drifts(run: NetworkRun, stage: Stage, piece: Piece, params: Params) -> tuple[float, float, float]:
    if stage.weight is None:
        return math.inf, math.inf, math.inf
    here = kernel(run.cls, params, run.scale)[np.ix_(run.live, run.live)]
    bent = bends(run.cls, params, run.scale, run.live)
    weight = stage.weight.matrix
    size = math.sqrt(float(np.einsum("xi,ij,xj->x", bent.step, weight, bent.step).max()))
    drift = relative(here, piece.kernel.matrix) / piece.eta
    return drift, turning(bent, stage.kernel.matrix) / stage.turn, size / stage.bend


def _where(run: NetworkRun, time: int) -> tuple[Stage, Piece]:
    """Those in use at the handoff after `time`, or the last ones."""
    every = [(s, p) for s in run.stages for p in s.pieces]
    return next(((s, p) for s, p in every if p.first <= time < p.last), every[-1])
