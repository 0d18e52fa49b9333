# %% [markdown]
# # The total bound, and the cheapest design for a target
#
# After $T$ handoffs the error against the central oracle is at most
#
# $$\bigl(\mathbb E\Vert Q_T\circ\varphi-Q^\ast\Vert_d^2\bigr)^{1/2}\le E_{\mathrm{mix}}(T)+E_{\mathrm{app}}+E_{\mathrm{int}}$$
#
# ([theory, section 6](../docs/theory.md#6-the-theorem)). The three terms have different remedies: handoffs, a richer
# class, a better interface. Which one is worth paying for?

# %%
from dataclasses import replace

import numpy as np
from IPython.display import Markdown

from icq_bounds.sweep.families import DialsFamily
from notebooks.explore import curves, pictures
from notebooks.explore.terms import analysis, interface_of, learned_by, positions, sliders, terms

pictures.use_style()
ten = DialsFamily(agents=10, gap=0.5, kernel_share=0.0)
analysis(ten).smdp

# %% [markdown]
# ## The theorem in symbols
#
# `bounds.symbolic` holds every term as a SymPy expression ([section 6.5](../docs/theory.md#65-in-symbols)). Here are the
# interface gap, the class error, and the leading order of the bound on the residual at a constant step $\alpha$, with the
# numbers of ten agents, eight features each, and the step that is best for a million handoffs. `symbolic.statement()`
# spells out the whole residual, `symbolic.LAST` is what is evaluated.

# %%
from bounds import symbolic
from bounds.ladder import class_of
from icq_bounds.error_theorem import best_step

a, pop, T = analysis(ten), learned_by(ten, 8).problem, 10**6
values = symbolic.interface_values(a) | symbolic.approximation_values(class_of(pop)) | {symbolic.T: T}
values |= symbolic.residual_values(pop, best_step(pop, T), 0 * pop.theta_star)
formulas = {"interface": symbolic.INTERFACE_D, "approximation": symbolic.APPROXIMATION, "residual": symbolic.LEADING}
Markdown(curves.evaluated(formulas, values))

# %%
whole = symbolic.INTERFACE_D + symbolic.APPROXIMATION + symbolic.LAST
Markdown(
    f"At finite $T$ the residual is at most {symbolic.evaluate(symbolic.LAST, values):.3g}, from "
    f"{len(symbolic.LAST.free_symbols)} constants, and the total **{symbolic.evaluate(whole, values):.3g}**."
)


# %% [markdown]
# ## Which term dominates, and why
#
# The dials family moves each term alone ([section 8.9](../docs/theory.md#89-summary)): the gap dial moves the
# interface gap, the class its own error and the constant of the residual, and handoffs divide the residual by
# $\sqrt T$. So the sum falls until it meets the two flat lines, and the larger of them says what to change next. Gap
# and class error are exact, the residual is its asymptote; the triangle is the bound on the sum.

# %%
def budget(gap, features, mixing, handoffs, ax=None):
    return curves.dials_budget(replace(ten, gap=gap, mixing=mixing), features, handoffs, ax=ax)


shown = [(0.25, 2, 10**4), (0.25, 14, 10**4), (1.0, 14, 10**6), (0.25, 0, 10**6)]
positions(budget, *({"gap": g, "features": f, "mixing": 0.3, "handoffs": T} for g, f, T in shown));

# %%
handoffs = {f"{10**k:,}": 10**k for k in range(3, 9)}
classes = {"2 features": 2, "14 features": 14, "table": 0}
dial = {"gap": [0.0, 0.25, 0.5, 0.75, 1.0], "mixing": [0.02, 0.1, 0.3]}
for m in dial["mixing"]:  # bounds are computed now and kept, so that sliders only draw
    for f in classes.values():
        for T in handoffs.values():
            terms(replace(ten, mixing=m), f, T)
sliders(budget, **dial, features=classes, handoffs=handoffs)


# %% [markdown]
# The whole landscape at once: which of the three is the largest, with contours of their sum. More data moves to the
# right, a better interface down, a richer class from panel to panel.

# %%
def dominance(features, ax=None):
    return curves.dominance(ten, features, np.linspace(0, 1, 21), ax=ax)


positions(dominance, *({"features": f} for f in (4, 8, 14, 0)));

# %% [markdown]
# ## What one more unit buys
#
# To plan, the terms need to be functions of what can be bought. These are *models*
# ([section 6.6](../docs/theory.md#66-models-and-which-term-falls-fastest)): the class error falls like a power of the
# width, the interface gap halves with every bit that is shown, the residual is $\sqrt{\mathrm{tr}/T}$. The first is
# fitted to exact class errors at gap dial 1 and says by how much it misses.

# %%
from bounds.planner import BitLaw, Costs, SharpResidual, fit_power

full = replace(ten, gap=1.0)
counts = [2, 4, 8, 14]
width = fit_power(counts, [learned_by(full, f).error.value for f in counts])
bits, residual = BitLaw(interface_of(full).value), SharpResidual(learned_by(full, 0).constant)
Markdown(
    f"Class error {width.scale:.3g} / width$^{{{width.power:.2f}}}$, off by at most {width.misfit:.0%}; "
    f"interface gap {bits.scale:.3g} / 2$^\\mathrm{{bits}}$; residual $\\sqrt{{{residual.trace:.3g}/T}}$."
)

# %% [markdown]
# Does a bit halve the gap? It does where what is hidden is a number and a bit its next digit. A clerk answers a request
# of difficulty 0 to 15 or asks an expert, and both are told its first $k$ bits:

# %%
from icq.build import Outcome, from_functions
from icq.exact import analyse


def desk(shown):
    def outcomes(state, option):
        if option == "ask":
            return [Outcome(1.0, ("expert", state[1]))]
        thorough = option == "thorough"
        return [Outcome(1.0, None, 0.2 if thorough else 1 - 2 * state[1] / 15, 4 if thorough else 1)]

    return from_functions(
        start=[("clerk", k) for k in range(16)], agent=lambda state: state[0], outcomes=outcomes, gamma=0.95,
        observe=lambda state: state[1] >> (4 - shown),
        options=lambda state: ["quick", "ask" if state[0] == "clerk" else "thorough"],
    )


# %%
gaps = [(a := analyse(desk(k).smdp)).norm_d_state(a.gap) for k in range(5)]
Markdown("Exact gap with 0 to 4 bits shown: " + ", ".join(f"{g:.3f}" for g in gaps) + ".")

# %% [markdown]
# Which purchase lowers the total most per unit of money depends on prices. These are invented: 1 per unit of width, 4
# per bit, 1 per thousand handoffs.

# %%
from bounds.planner import falls_fastest

costs = Costs(width=1.0, bits=4.0, handoffs=1e-3)
laws = {symbolic.C_APP: width.scale, symbolic.P_APP: width.power, symbolic.TRACE: residual.trace}
laws |= {symbolic.B_0: bits.scale, symbolic.GBAR: 0.0}  # the gap itself is halved
for w, b, T in ((4, 0, 10**3), (4, 0, 10**5), (16, 0, 10**4), (16, 4, 10**4)):
    slopes = falls_fastest(laws | {symbolic.WIDTH: w, symbolic.BITS: b, symbolic.T: T}, costs)
    print(f"width {w:2}, {b} bits, {T:7,} handoffs: " + ", ".join(f"{name} {slope:.2g}" for name, slope in slopes))

# %% [markdown]
# ## The cheapest design
#
# `plan` finds the optimum over whole widths, whole bits and handoffs
# ([Lemma 6.5](../docs/theory.md#67-the-cheapest-plan)). Colours say which error the money goes against.

# %%
goals = np.geomspace(0.04, 1.0, 60)


def shop(target, price_of_a_bit, price_of_1000_handoffs, ax=None):
    costs = Costs(width=1.0, bits=price_of_a_bit, handoffs=price_of_1000_handoffs / 1000)
    return curves.shopping(target, goals, width, bits, residual, costs, ax=ax)


prices = [(4.0, 1.0), (40.0, 1.0), (4.0, 0.1), (4.0, 10.0)]
positions(shop, *({"target": 0.2, "price_of_a_bit": b, "price_of_1000_handoffs": h} for b, h in prices));

# %%
sliders(
    shop, target=[0.05, 0.1, 0.2, 0.3, 0.5], price_of_a_bit=[0.4, 4.0, 40.0], price_of_1000_handoffs=[0.1, 1.0, 10.0]
)

# %% [markdown]
# The prediction is not a bound. With the bound on the residual of 14 features instead, at the constant step that is best
# for a million handoffs, the same target has a guarantee, and its price. Its floor is what that step never undercuts; a
# target below the sum of the floors is refused with the largest of them.

# %%
from bounds.planner import Infeasible, certified_residual, plan

pop = learned_by(full, 14).problem
sure = certified_residual(pop, best_step(pop, 10**6), 0 * pop.theta_star)
print("predicted:", plan(0.3, width, bits, residual, costs))
print("bounded:", plan(0.3, width, bits, sure, costs))
try:
    plan(0.03, width, bits, sure, costs)
except Infeasible as error:
    print(error)

# %% [markdown]
# **What to remember.** Handoffs buy down one of three terms, and only until the larger flat line is met. Look at which
# line that is before paying for more data.
#
# **Next**: [your own workflow](06_your_own_workflow.ipynb).
