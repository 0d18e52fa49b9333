"""The finite-sample theorem for networks: two curves and a prediction (docs/theory.md section 5e)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from bounds.core.curve import Curve, curve
from bounds.network.run import NetworkRun
from bounds.residual import loops
from bounds.residual.population import population, tabular_features

SECTION = "docs/theory.md section 5e"


def last_iterate(run: NetworkRun) -> Curve:
    """Theorem (networks): (E[||f_theta_T - Qbar||_d^2; not killed])^{1/2} <= ||q_T - Qbar||_d + chi V_T^{1/2}.

    Assumes plain steps that do not grow, a kernel of full rank along the path, a drift and small corrections at every
    kernel.  Killed: from the first handoff before which the kernel is further than eta from the one in use, the table
    further than reach from the reference, or some step that may come turns or bends more than a stage allows.
    """

    def compute() -> tuple[Float[np.ndarray, "n"], dict[str, float]]:
        way, noise = distance(run), fluctuation(run)[0]
        return way + noise, {"path": float(way[-1]), "fluctuation": float(noise[-1]), "kernels": len(run.stages)}

    return curve("network around its path", run.times, run.assumptions, compute, SECTION, _cap(run))


def averaged(run: NetworkRun) -> Curve:
    """Theorem (networks, averaged): the same for the weighted mean of the tables f_theta_k while the run is not killed.

    It is not the table of the mean parameters, which is what a learner with networks averages.
    """

    def compute() -> tuple[Float[np.ndarray, "n"], dict[str, float]]:
        way, noise = mean_distance(run), fluctuation(run)[1]
        return way + noise, {"path": float(way[-1]), "fluctuation": float(noise[-1]), "kernels": len(run.stages)}

    return curve("network around its path, averaged", run.times, run.assumptions, compute, SECTION, _cap(run))


def fluctuation(run: NetworkRun) -> tuple[Float[np.ndarray, "n"], Float[np.ndarray, "n"]]:
    """(E[||f_theta - q||_d^2; not killed])^{1/2} at run.times, and the root of its weighted mean until then."""
    rows, ends = np.concatenate([x.rows for x in run.stages]), np.concatenate([x.ends for x in run.stages])
    _, mean, _, error = loops.iterate(
        rows, ends.astype(np.int64), run.alpha, 0.0, run.times.astype(np.int64), run.average.weights,
        run.average.inclusive,
    )  # fmt: skip
    return error, np.sqrt(mean)


def distance(run: NetworkRun) -> Float[np.ndarray, "n"]:
    """||q - Qbar||_d at run.times."""
    q = np.concatenate([p.reference for p in run.pieces])
    return np.sqrt((q - run.analysis.q_bar.reshape(-1)[run.live]) ** 2 @ _mass(run))


def mean_distance(run: NetworkRun) -> Float[np.ndarray, "n"]:
    """||mean of q_k - Qbar||_d, with what iterates are off their chords."""
    d, out = _mass(run), []
    sums, off, mass = np.zeros(len(d)), np.zeros(len(d)), 0.0
    for p in run.pieces:
        for i in range(len(p.times)):
            mean, away = (sums + p.sums[i]) / (mass + p.mass[i]), (off + p.off[i]) / (mass + p.mass[i])
            out.append(float(np.sqrt(mean**2 @ d) + np.sqrt(away**2 @ d)))
        sums, off, mass = sums + p.sums[-1], off + p.off[-1], mass + float(p.mass[-1])
    return np.array(out)


def predicted(run: NetworkRun) -> Float[np.ndarray, "n"]:
    """Where (E||f_theta - Qbar||_d^2)^{1/2} should lie at run.times, to leading order in the step; not a bound."""
    return np.sqrt(distance(run) ** 2 + np.concatenate([p.twin for p in run.pieces]) ** 2)


def _mass(run: NetworkRun) -> Float[np.ndarray, "X"]:
    return run.analysis.d_pair.reshape(-1)[run.live]


def _cap(run: NetworkRun) -> float:
    """The largest ||Q - Qbar||_d of a table in the range of discounted sums of rewards."""
    return population(run.analysis, tabular_features(run.analysis)).range_cap
