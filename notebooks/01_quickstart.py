# %% [markdown]
# # Which error dominates?
#
# Ten agents hand a task to each other. Each sees only its own observation and learns from one number per handoff
# (IC-Q). How far is what they have learned, $Q_T$, from what a central planner who sees everything would know,
# $Q^\ast$? The difference is the sum of three
# ([theory, section 2.1](../docs/theory.md#21-three-errors)):
#
# $$Q_T\circ\varphi-Q^\ast=\underbrace{(Q_T-Q_F)\circ\varphi}_{\text{mixing residual}}+\underbrace{(Q_F-\bar Q)\circ\varphi}_{\text{approximation}}+\underbrace{(\bar Q\circ\varphi-Q^\ast)}_{\text{interface gap}}$$
#
# $\bar Q$ is the best that handoffs can teach someone who sees only $\varphi(s)$, and $Q_F$ is what the function class
# makes of it. More handoffs reduce the first part, a richer class the second, a better interface the third.

# %% [markdown]
# ## A workflow
#
# The dials family has one dial per source of error ([section 8](../docs/theory.md#8-dials)). `analyse` computes
# everything that is exact about an instance: the stationary law $d$, $Q^\ast$ and $\bar Q$.

# %%
import icq_bounds as ib
from notebooks.explore import pictures

pictures.use_style()
m = ib.dials(agents=10, gap=1.0, mixing=0.3)
a = ib.analyse(m)
m

# %% [markdown]
# ## Learning
#
# Every agent judges what it sees and which option it takes, but not the combination: three numbers for its sixteen
# pairs, too few on purpose, so that there is an approximation error to see. Sixteen runs learn along one trajectory
# each, with steps small enough for the theorem to speak of them; the averaged iterate is recorded on the way.

# %%
import numpy as np

from icq.learn import classes
from icq.learn.learner import LearnerConfig, learn

seen = np.arange(m.num_observations) % 2  # the last part of an observation; the others say whose and where
psi = np.ones((m.num_observations, m.num_options, 3)) / np.sqrt(3)
psi[:, :, 1] *= 2 * seen[:, None] - 1
psi[:, 0, 2] *= -1

how = LearnerConfig(step=0.003, decay_power=0.6, decay_offset=30_000.0, averaging_power=2.0)
handoffs = np.array([2**k for k in range(7, 21)])
agents = classes.linear(m, psi)
record = learn(a, agents, how, seeds=16, checkpoints=handoffs)

# %% [markdown]
# ## Three terms
#
# For a linear class $Q_F$ is computed exactly. `decompose` measures each difference in $\Vert\cdot\Vert_d$, the root
# mean square over handoffs, and raises an error should the triangle inequality fail for any record.

# %%
from bounds.approximation.class_error import class_fixed_point
from bounds.approximation.classes import linear_class

q = np.asarray(record.q_average, np.float64)
members = linear_class(a, psi)
errors, _ = ib.decompose(a, q, class_fixed_point(members).q)

# %% [markdown]
# ## A bound beside each
#
# A *bound* is known before the run: it needs the workflow, the class and the schedule, and no handoff. There is one on
# each term and on their sum, with assumptions that are checked on the instance
# ([section 3.2](../docs/theory.md#32-rungs-1-and-2-the-gap-value),
# [section 4.4](../docs/theory.md#44-the-right-angle-theorem), [section 5d](../docs/theory.md#5d-the-moving-reference)).

# %%
from bounds.theorem import Output
from icq_bounds.sweep.beforehand import beforehand

before = beforehand(a, agents, how, handoffs)
bounds = {term: [b.value for b in found[Output.AVERAGE]] for term, found in before.bounds.items()}

# %% [markdown]
# A *certificate* is computed afterwards from what was learned, whatever has produced it. Here is that of the residual
# ([section 4.4](../docs/theory.md#44-the-right-angle-theorem)).

# %%
from bounds.approximation.class_error import projected_certificate

residual = np.array([[projected_certificate(members, table).value for table in run] for run in q])
certificates = {"residual": residual}
pictures.terms_over_time(handoffs, errors, bounds, certificates);

# %% [markdown]
# Solid with 95 % intervals over runs: observed. Dashed: the bound. Dotted: the certificate, root mean square over runs.
# In numbers, after the last handoff:

# %%
from IPython.display import Markdown

Markdown(pictures.terms_table(handoffs, errors, bounds, certificates))

# %% [markdown]
# **Why?** What the interface hides is fresh at every handoff and averages out, so the law of everything that can be
# logged is the same with and without the gap
# ([Theorem 8.2](../docs/theory.md#83-gap-the-logs-do-not-change-at-all)). No number of handoffs says anything about
# it: once its start is forgotten the learner converges like $1/\sqrt T$, to a table that is wrong by the two flat lines.
# Only seeing more, or a richer class, moves those.
#
# With agents of a usual class, `ib.verify(m)` does all of this in one call.
#
# **Next**: [what makes the interface gap, and whose it is](02_interface_gap.ipynb);
# [what width buys](03_function_approximation.ipynb).
