# %% [markdown]
# # The interface gap: how large, how certain, whose?
#
# An agent sees $\varphi(s)$ and not $s$. What one step of the true process reveals about the interface values $\bar Q$
# is the *local gap* ([theory, section 3.1](../docs/theory.md#31-the-local-gap))
#
# $$b(s,a)=r(s,a)-\hat r(\varphi(s),a)+\sum_{o'}\bigl[K(o'|s,a)-\hat K(o'|\varphi(s),a)\bigr]\bar V(o').$$
#
# It is known as soon as the model is; the gap $Q^\ast-\bar Q\circ\varphi$ needs the oracle. Every bound here follows
# the local gap through the workflow, with more or less patience.

# %%
import numpy as np
from IPython.display import Markdown

from icq_bounds.sweep.families import DialsFamily
from notebooks.explore import pictures
from notebooks.explore.terms import analysis, positions, sliders

pictures.use_style()
dial = [round(0.1 * k, 1) for k in range(11)]
seen = {g: analysis(DialsFamily(gap=g)) for g in dial}
seen[1.0].smdp

# %% [markdown]
# ## The dial
#
# The gap dial tilts the odds of outcomes by what is hidden, so that the tilts average to nothing over what an agent
# sees: $b$ is linear in it ([Lemma 8.4](../docs/theory.md#83-gap-the-logs-do-not-change-at-all)), while nothing that
# can be logged without context moves at all.

# %%
pictures.gap_against_dial(dial, [*seen.values()]);

# %% [markdown]
# The *gap value* follows $|b|$ to the end of the task, $E=|b|+K\max_aE$; the *signed* one lets gains and losses along
# a path cancel; the *scalar* bound $\Vert b\Vert_d/(1-\kappa_S)$ knows one number of the workflow
# ([section 3.2](../docs/theory.md#32-rungs-1-and-2-the-gap-value),
# [section 3.4](../docs/theory.md#34-the-same-in-the-d-norm)).

# %%
still = max(np.abs(a.q_bar - seen[0.0].q_bar).max() + np.abs(a.d - seen[0.0].d).max() for a in seen.values())
straight = max(np.abs(a.local_gap - g * seen[1.0].local_gap).max() for g, a in seen.items())
worth = [100 * a.d @ a.interface_value.v / (a.d @ a.v_star) for a in seen.values()]
Markdown(
    f"From dial 0 to 1 the interface values and the stationary law move by {still:.0e} and $b$ is off a straight line "
    f"by {straight:.0e}: rounding. The best that these interfaces allow falls from {worth[0]:.1f} to "
    f"{worth[-1]:.1f} per cent of the oracle's value."
)

# %% [markdown]
# ## The ladder
#
# Each rung knows less about the workflow than the one before ([section 3.9](../docs/theory.md#39-the-ladder)): the
# whole kernel, who hands over to whom, one discount, distances between distributions. First the rungs in
# $\Vert\cdot\Vert_d$, then those in the sup norm, which bound it too. One whose assumption fails has no number.

# %%
from bounds.ladder import interface_rungs


def draw(gap, kernel_share=0.5, ax=None):
    rungs = interface_rungs(analysis(DialsFamily(gap=gap, kernel_share=kernel_share)))
    return pictures.ladder(rungs, ax, limit=1.6).set_title(f"gap {gap:g}, {kernel_share:.0%} of it in the next state")


sliders(draw, gap=dial[1:], kernel_share=[0.0, 0.25, 0.5, 0.75, 1.0])  # moves in a running notebook

# %%
at = [{"gap": g, "kernel_share": k} for g in (0.3, 1.0) for k in (0.0, 1.0)]
axs = positions(draw, *at, size=(5.4, 3.4))


# %%
def ratios(a):
    return {rung.bound.name: rung.bound.value / a.norm_d_state(a.gap) for rung in interface_rungs(a)[1:]}


a = seen[1.0]
found = [*ratios(a).values()]
coarsest = {share: np.nanmax([*ratios(analysis(DialsFamily(kernel_share=share))).values()]) for share in (0.0, 1.0)}
Markdown(
    f"The line is the gap itself. At gap 1, half of it in the next state, bounds are "
    f"{np.nanmin(found):.2f} to {np.nanmax(found):.2f} times the gap. With all of it in the next state the gap "
    f"is small and the coarsest rung {coarsest[1.0]:.1f} times as large ({coarsest[0.0]:.1f} with none): a distance "
    "between distributions does not see that hidden destinations are worth much the same."
)

# %% [markdown]
# ## Distances between distributions
#
# If only distributions can be compared, the local gap splits into three
# ([section 3.7](../docs/theory.md#37-rung-5-how-long-versus-where)): what the option earns (*reward*), how long it
# takes (*mass*), where it leads (*shape*). The last is a distance between what a state and what its observation
# predict: total variation; Wasserstein in a metric of the observations, here the difference of their values;
# maximum mean discrepancy of a kernel, here the identity.

# %%
from bounds.interface import information

splits = [
    information.wasserstein(a, a.v_bar[:, None]),
    information.centred_total_variation(a),
    information.total_variation(a),
    information.maximum_mean_discrepancy(a, np.eye(len(a.v_bar))),
]
pictures.mismatch_bars(splits, a.norm_sup_state(a.local_gap));

# %% [markdown]
# The black line is the largest $|b|$ itself. A metric that knows which observations are worth the same wastes least;
# the identity kernel knows nothing about them and pays for every difference.
#
# ## Whose interface?
#
# The agent gap value $e_i$ bounds the error in all states of agent $i$, and
# $A_{ij}$ with $\sum_jA_{ij}=e_i$ is the part of it that agent $j$'s interface causes
# ([Lemma 3.13](../docs/theory.md#36-rung-3-agents-and-who-causes-what)): the most that $i$ can gain when the local gap
# of $j$ disappears.

# %%
from bounds.interface.agents import agent_gap_value

found = agent_gap_value(a, a.local_gap)
pictures.attribution_map(found.attribution);

# %% [markdown]
# Read along a row: who makes this agent's error uncertain. Read down a column: what this interface costs everybody.
# Is it true? Show agent $j$ everything (each hidden state gets an observation of its own), solve again, and see by how
# much the bound of the worst agent falls. Seeing more also moves $\bar V$, of which the attribution knows
# nothing, so the two need not agree.

# %%
from bounds.interface.split import refine


def shown_everything(a, agent):
    for o in np.flatnonzero(a.smdp.agent == agent):
        a = refine(a, int(o))
    return a


worst = int(found.value.argmax())
opened = [shown_everything(a, j) for j in range(a.smdp.num_agents)]
falls = [found.value[worst] - agent_gap_value(o, o.local_gap).value[worst] for o in opened]
pictures.promised_and_found(found.attribution[worst], falls, worst);

# %%
best = int(np.argmin([o.norm_d_state(o.gap) for o in opened]))
Markdown(
    f"The attribution of agent {worst}'s error names agent {int(found.attribution[worst].argmax())} first. The exact "
    f"gap of the whole workflow, {a.norm_d_state(a.gap):.3f} in the $d$-norm, falls most when agent {best} sees "
    f"everything: to {opened[best].norm_d_state(opened[best].gap):.3f}. No single interface is to blame: the dials "
    "family hides something from everybody."
)

# %% [markdown]
# **Next**: [what width buys](03_function_approximation.ipynb).
