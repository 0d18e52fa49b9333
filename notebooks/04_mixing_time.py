# %% [markdown]
# # Mixing: what correlated handoffs cost, and when they cost nothing
#
# What $T$ handoffs leave undecided is the mixing residual $\Vert Q_T-Q_F\Vert_d$: $Q_F$ is where the class would end up
# with infinitely many of them ([theory, section 2.1](../docs/theory.md#21-three-errors)). Handoffs along a workflow
# are correlated. The *i.i.d. control* is the same learner on handoffs drawn afresh from the stationary law
# ([section 2.2](../docs/theory.md#22-the-control)), so the difference between both is the price of correlation.

# %%
from dataclasses import replace

from IPython.display import Markdown

from icq_bounds.sweep.families import DialsFamily
from notebooks.explore import curves, pictures
from notebooks.explore.terms import analysis, learned_by, positions, sliders

pictures.use_style()
pipeline = DialsFamily(agents=3, graph="pipeline", visible=1, gap=0.5, kernel_share=0.0, action_gap=0.3)
dial = [0.75, 0.1, 0.02, 0.005]
Markdown(
    "Three agents in a pipeline. Mixing time, in handoffs: "
    + ", ".join(f"{analysis(replace(pipeline, mixing=m)).mixing_time():.0f} at dial {m:g}" for m in dial)
    + "."
)


# %% [markdown]
# ## A poor class pays, a table does not
#
# Three features per agent cannot represent $\bar Q$, so the TD errors at $Q_F$ have a mean given the state, and a chain
# that moves slowly repeats it. In a table without hidden memory they have none: whatever the chain does, successive
# updates are uncorrelated, and slow mixing costs a transient ([Lemma 8.8](../docs/theory.md#86-mixing)). Dash-dotted: the sharp
# prediction ([Theorem 5.6](../docs/theory.md#5a-sharp-variances))
#
# $$T\mathbb E\Vert Q_{\mathrm{avg}}-Q_F\Vert_d^2\to\operatorname{tr}\bigl(\Psi'D\Psi J^{-1}(\Sigma_0+\Sigma_{\mathrm{mix}})J^{-T}\bigr),$$
#
# with $\Sigma_{\mathrm{mix}}$ left out for the control. Nothing is fitted. Bands are 95 % intervals over 16 runs.

# %%
def residual(features, mixing, ax=None):
    return curves.residual(replace(pipeline, mixing=mixing), features, ax=ax)


at = [{"features": f, "mixing": m} for f in (3, 0) for m in (0.75, 0.02)]
positions(residual, *at);

# %%
classes = {"3 features": 3, "table": 0}
for mixing in dial:  # learned now and kept, so that sliders only draw
    for features, iid in ((3, False), (3, True), (0, False), (0, True)):
        curves.residuals(replace(pipeline, mixing=mixing), features, iid, 16, 2**17)
sliders(residual, features=classes, mixing=dial[::-1])

# %% [markdown]
# The intervals of the ratio leave out pairs of runs that share their random numbers
# (`estimators.decomposition.mixing_split`).

# %%
from estimators.decomposition import mixing_split

rows = ["| class | mixing | observed ratio of squares | predicted |", "| --- | --- | --- | --- |"]
for p in at:
    family, features = replace(pipeline, mixing=p["mixing"]), p["features"]
    runs = [curves.residuals(family, features, iid, 16, 2**17)[:, -1] for iid in (False, True)]
    low, high = mixing_split(*runs).ratio.interval
    found = learned_by(family, features)
    name = curves.class_name(features)
    rows.append(f"| {name} | {p['mixing']} | {low**2:.2f} to {high**2:.2f} | {found.constant / found.control:.2f} |")
Markdown("\n".join(rows))


# %% [markdown]
# ## Where the price comes from
#
# The variance of an average is the sum of all autocovariances of what one handoff contributes,
# $u_k=G^{1/2}J^{-1}\psi(x_k)\delta^\ast_k$ with $G=\Psi'D\Psi$. Counted up to a lag, and in units of the control's, the sum
# says how many handoffs along the trajectory count as one independent one (Lemma 5.2). It is exact, and has no sign:
# fast alternation helps.

# %%
def correlation(features, mixing, ax=None):
    return curves.correlation(replace(pipeline, mixing=mixing), features, ax=ax)


positions(correlation, *at);

# %%
sliders(correlation, features={"2 features": 2, **classes}, mixing=dial[::-1])

# %% [markdown]
# ## Hidden state that stays
#
# A table is safe because the hidden part is redrawn at every handoff. Let it be kept with probability $p$, with the gap
# in the reward alone ([Lemma 8.13](../docs/theory.md#88-dials-that-are-not-pure)). Then $\bar Q$ and $\Sigma_0$ stay
# where they are, but the local gap $b$ of one handoff returns at the next: the covariance at lag $j$ carries $b^2p^j$,
# hence the *square* of the gap dial. What the interface hides now also slows learning down: two errors are coupled.

# %%
kept = [0.0, 0.3, 0.6, 0.8, 0.9, 0.95]
curves.persistence(pipeline, [0.0, 0.25, 0.5, 1.0], kept);


# %%
def hidden_memory(gap, persistence, ax=None):
    family = replace(pipeline, gap=gap, persistence=persistence)
    return curves.correlation(family, 0, name=f"gap {gap:g}, kept {persistence:g}", ax=ax)


positions(hidden_memory, {"gap": 0.0, "persistence": 0.9}, {"gap": 1.0, "persistence": 0.9});

# %%
sliders(hidden_memory, gap=[0.0, 0.25, 0.5, 0.75, 1.0], persistence=kept)

# %%
family = replace(pipeline, gap=1.0, persistence=0.9)
runs = [curves.residuals(family, 0, iid, 16, 2**17)[:, -1] for iid in (False, True)]
low, high = mixing_split(*runs).ratio.interval
found = learned_by(family, 0)
Markdown(
    f"Simulated at gap 1 and persistence 0.9: the squared residual of the trajectory is {low**2:.2f} to {high**2:.2f} "
    f"times that of the control (95 %), predicted {found.constant / found.control:.2f}."
)


# %% [markdown]
# ## A bound for every $T$
#
# The prediction is a limit. The Poisson bound ([section 5b](../docs/theory.md#5b-poisson-bound)) holds at every
# $T$ and for every start, and is known before the run, with every constant computed from the workflow: correlation is
# removed by solving a Poisson equation of the handoff chain, twice. Removing it once leaves maxima over states where
# stationary averages could be, and soon says less than the range of rewards. The sharp level is that of a constant step
# (Theorem 5.7).

# %%
def bounded(mixing, local_step, seeds=0, ax=None):
    return curves.bounded(replace(pipeline, mixing=mixing), local_step, seeds=seeds, ax=ax)


shown = [{"mixing": m, "local_step": step, "seeds": 8} for step in (0.01, 0.003) for m in (0.3, 0.1)]
positions(bounded, *shown);

# %%
grid = {"mixing": [0.05, 0.1, 0.3], "local_step": [0.001, 0.003, 0.01]}
for m in grid["mixing"]:
    for step in grid["local_step"]:
        curves.bounds(replace(pipeline, mixing=m), step, 2**18)  # kept: sliders only draw
sliders(bounded, **grid)

# %% [markdown]
# **What to remember.** A slow chain makes a poor class pay in variance, a table only in a transient; what is hidden and
# stays makes a table pay too, with the square of the gap. The bound needs small steps where the chain is slow, then ends
# at about twice the truth.
#
# **Next**: [which of the three errors to pay for](05_total_bound_and_planner.ipynb).
