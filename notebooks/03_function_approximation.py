# %% [markdown]
# # Function approximation: what width buys, and how to know
#
# A class $F$ of tables (one network per agent, say) does not contain the interface values $\bar Q$. Learning in it runs
# into its own fixed point $Q_F=\Pi\hat TQ_F$, where $\Pi$ projects on $F$. Two questions: how far is $Q_F$ from
# $\bar Q$, and how far is a table that somebody hands us?
#
# The first is answered by a right angle
# ([theory, section 4.4](../docs/theory.md#44-the-right-angle-theorem)): if the projected operator contracts,
# $\kappa_F\lt1$, then
#
# $$\Vert Q_F-\bar Q\Vert_d\le\frac{\Vert\Pi\bar Q-\bar Q\Vert_d}{\sqrt{1-\kappa_F^2}}.$$

# %%
import numpy as np
from IPython.display import Markdown

from icq.exact import analyse
from notebooks.explore import pictures
from notebooks.explore.terms import positions, sliders
from synthetic.dials import Dials, Shape, dials_instance

pictures.use_style()
m = dials_instance(Shape(clusters=8), Dials(gap=0.5), seed=0)
a = analyse(m)
a

# %% [markdown]
# ## Tangent features
#
# At its start $\theta_0$ a network has the tangent class $\lbrace f_0+\Psi(\theta-\theta_0)\rbrace$, $\Psi$ its
# Jacobian ([section 4.5](../docs/theory.md#45-networks-of-finite-width)). It is linear, so $Q_F$, its distance from
# $\bar Q$ and the bound are computed, not fitted. Each agent has one hidden layer on three numbers that describe an
# observation. A hidden unit contributes its own columns of $\Psi$ and no other's, and $f_0$ lies in their span, so the
# class of a narrow network is that of the first units of a wide one.

# %%
import jax

from icq.learn import networks
from icq.learn.learner import initial_params, seed_keys

widths = [1, 2, 3, 4, 5, 6]
net = networks.network(m, networks.random_inputs(m, 3, seed=0), width=6)
start = initial_params(net, seed_keys(range(8)))  # eight starts
psi = jax.jit(jax.vmap(lambda params: networks.neural_tangent(m, net, params).features))(start)

# %%
from bounds.approximation.class_error import class_error_bound, class_fixed_point
from bounds.approximation.classes import linear_class

# Columns: a bias and three weights into every unit, a bias of either option, two weights out of every unit.
units = np.arange(6)
unit = np.concatenate([units, np.tile(units, 3), [-1, -1], np.repeat(units, 2)])
psi = np.asarray(psi, np.float64)
classes = {w: [linear_class(a, columns[..., unit < w]) for columns in psi] for w in widths}
fixed = {w: [class_fixed_point(F).q for F in classes[w]] for w in widths}

# %%
from estimators.statistics.estimate import root_mean_square

error = {w: np.array([a.norm_d(q - a.q_bar) for q in fixed[w]]) for w in widths}
bound = {w: np.array([class_error_bound(F).value for F in classes[w]]) for w in widths}
series = {
    "class error": ([root_mean_square(error[w]) for w in widths], "-"),
    "bound": ([root_mean_square(bound[w]) for w in widths], "--"),
}
pictures.against_width(widths, series);

# %%
pairs, features = m.num_observations // m.num_agents * m.num_options, [int((unit < w).sum()) for w in widths]
narrow = [w for w in widths if error[w].min() > 1e-9]
ratio = np.concatenate([bound[w] / error[w] for w in narrow])
Markdown(
    f"An agent has {pairs} values to represent; at width {', '.join(map(str, widths))} it has "
    f"{', '.join(map(str, features))} tangent features. From width {narrow[-1] + 1} on every table is in the class. "
    f"Before, the bound is {ratio.min():.2f} to {ratio.max():.2f} times the error: "
    f"$\\kappa_F={classes[1][0].modulus:.3f}$ at width 1, $1/\\sqrt{{1-\\kappa_F^2}}$ is "
    f"{1 / np.sqrt(1 - classes[1][0].modulus ** 2):.2f}."
)


# %% [markdown]
# ## Where the error sits
#
# One point per observation and option, larger where visited more: the value in the fixed point of the tangent class
# (of the first start) against the value that is to be represented.

# %%
def draw(width, ax=None):
    title = f"width {width}: error {error[width][0]:.3f}, at most {bound[width][0]:.3f}"
    return pictures.against_truth(fixed[width][0], a.q_bar, a.d_pair, ax).set_title(title)


sliders(draw, width=widths)  # moves in a running notebook; some positions follow

# %%
positions(draw, *({"width": w} for w in (1, 2, 4, 5)), size=(4.2, 3.8));

# %% [markdown]
# ## A certificate for any table
#
# Now networks of width 6, trained by Adam on handoffs along a trajectory. No bound is known before such a run, and
# still a certificate is computed afterwards from every learned table, by its own residual
# ([Lemma 4.4](../docs/theory.md#42-certificates-for-any-table)):
#
# $$\Vert Q-\bar Q\Vert_d\le\Vert E\Vert_d\le\frac{\Vert Q-\hat TQ\Vert_d}{1-\kappa},\qquad E=|Q-\hat TQ|+\hat K\max_aE.$$

# %%
from bounds.approximation.certificate import certificate_d, certificate_pointwise
from icq.learn.learner import learn
from icq_bounds.sweep.methods import Mlp

handoffs = [2**k for k in range(8, 16)]
how = Mlp(width=6).config(a, iid=False)  # Adam, steps that decay, averaging
record = learn(a, net, how, seeds=range(8), checkpoints=handoffs)
tables = np.asarray(record.q_average, np.float64)


# %%
def at_checkpoints(measure):
    return [root_mean_square(np.array([measure(q) for q in tables[:, k]])) for k in range(len(handoffs))]


found = {
    "error": (at_checkpoints(lambda q: a.norm_d(q - a.q_bar)), "-"),
    "pointwise certificate": (at_checkpoints(lambda q: certificate_pointwise(a, q)[0].value), ":"),
    "scalar certificate": (at_checkpoints(lambda q: certificate_d(a, q).value), ":"),
}
pictures.certificates(handoffs, found);

# %%
last = {name: estimates[-1] for name, (estimates, _) in found.items()}
Markdown(
    f"After {handoffs[-1]:,} handoffs the networks are {last['error']} from $\\bar Q$; the certificate says at most "
    f"{last['pointwise certificate']}, {last['pointwise certificate'].value / last['error'].value:.2f} times as much. "
    f"Too few features are not to blame: those of the tangent class leave an error of {error[6].max():.0e} at this "
    "width. What is left comes from training on finitely many handoffs."
)

# %% [markdown]
# ## What width buys, twice: a bound before the run
#
# With plain steps a network is, at any moment, a table whose preconditioner is the inverse of its kernel
# $K_\theta(x,y)=\langle\nabla f_\theta(x),\nabla f_\theta(y)\rangle$
# ([theory, section 5e](../docs/theory.md#5e-networks)). While the kernel has full rank nothing is out of reach, and the
# error after $T$ handoffs is bounded before the first of them: where the population path of these very networks is
# then, plus how far a run may be from it. Width buys rank first, and then a kernel that stays where its path is.

# %%
import icq_bounds as ib

small = ib.dials(agents=2, clusters=2, gap=0.5)


def plain(width):
    learner = ib.network(width, training="plain", step=0.02, decay_offset=2000.0)
    return ib.verify(small, handoffs=20_000, seeds=8, learner=learner)


narrow, wide = plain(1), plain(24)
wide.plot();

# %%
print(narrow, wide, sep="\n\n")

# %%
records = wide.to_dataset()
last = records.sel(term="residual", output="last")
observed = np.sqrt((last["observed"] ** 2).mean("replica"))
missing = narrow.terms["residual"].bound.failures[0]
Markdown(
    f"At width 1 there is no bound, because an assumption fails: {missing.name}, {missing.detail}. At width 24 it is "
    f"{float((last['bound'] / observed).min()):.2f} to {float((last['bound'] / observed).max()):.2f} times what was "
    f"observed, and the prediction (path and twin) is within "
    f"{100 * float(abs(records['predicted'] / observed - 1).max()):.1f} per cent of it. Of what a run may do before "
    f"the bound stops to speak of it, the eight runs used at most {float(records['used'].max()):.0%} at a checkpoint."
)

# %% [markdown]
# **Next**: [what mixing costs](04_mixing_time.ipynb).
