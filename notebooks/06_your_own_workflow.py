# %% [markdown]
# # Your own workflow
#
# Two ways in. If you can say what happens in one situation, a few functions describe the workflow and everything about
# it is exact. If you have a running system, its log of handoffs is enough. Replace either below by yours.

# %% [markdown]
# ## A pipeline in a few lines
#
# A *planner* hands over a sketch or a spec, a *coder* works quickly or carefully, a *tester* ships the patch or sends it
# back. A state says everything, also what nobody sees: who holds the work, whether the request is hard, whether there
# is a spec and, for a patch, whether it works. `outcomes` says what an option may lead to: a probability, the next state,
# a reward and how many hours it takes.

# %%
import icq_bounds as ib

OPTIONS = {"planner": ["sketch", "spec"], "coder": ["quick", "careful"], "tester": ["ship", "send back"]}
START = {("planner", False, False): 2, ("planner", True, False): 1}  # one request in three is hard


def outcomes(state, option):
    holder, hard, spec, *works = state
    if holder == "planner":
        return [ib.Outcome(1.0, ("coder", hard, option == "spec"), *((-0.1, 8) if option == "spec" else (0.0, 4)))]
    if option == "send back":
        return [ib.Outcome(1.0, ("coder", hard, spec), reward=-0.1, duration=4)]
    if option == "ship":
        return [ib.Outcome(1.0, None, reward=1.0 if works[0] else -1.0)]  # None: the task ends
    good = 0.25 + 0.25 * spec + 0.3 * (option == "careful") if hard else 0.9
    reward, steps = (-0.3, 8) if option == "careful" else (-0.1, 4)
    return [ib.Outcome(p, ("tester", hard, spec, w), reward, steps) for p, w in ((good, True), (1 - good, False))]


# %% [markdown]
# What the acting agent sees is the interface, and a choice. The coder can be told how hard the request is (someone has
# to read it first), the tester whether the tests pass (someone has to write them).

# %%
def observe(state, told=()):
    holder, hard, spec, *works = state
    seen = {"planner": "request", "coder": "spec" if spec else "sketch", "tester": "patch"}[holder]
    more = {"coder": "hard" if hard else "easy", "tester": "passes" if works and works[0] else "fails"}
    return f"{seen}, {more[holder]}" if holder in told else seen


def pipeline(told=()):
    return ib.from_functions(
        start=START, agent=lambda state: state[0], observe=lambda state: observe(state, told),
        options=lambda state: OPTIONS[state[0]], outcomes=outcomes, gamma=0.9,
    )


workflow = pipeline()
workflow.smdp

# %% [markdown]
# ## Its decomposition
#
# `analyse` computes what is exact. `measured` lets agents learn, here a table or a single feature per agent, and puts
# every error beside its bound, known before the run from the workflow, the class and the schedule
# ([theory, section 6](../docs/theory.md#6-the-theorem)).

# %%
from IPython.display import Markdown

from icq_bounds.sweep.measure import measured
from notebooks.explore import curves, pictures

pictures.use_style()
a = ib.analyse(workflow)
classes = {"tables": ib.table(), "one feature per agent": ib.features(1)}
found = {name: measured(a, method, 8, (10_000, 100_000, 1_000_000), iid=False) for name, method in classes.items()}
Markdown(curves.errors_and_bounds(found))

# %% [markdown]
# ## Which change is worth it?
#
# The interface gap dominates: more runs would not help. Four interfaces, exactly: how far values are off; what agents
# earn per handoff who do the best they can see, against someone who sees everything; and how many handoffs tables need
# until the residual is 0.01.

# %%
from bounds.interface.gap import trivial_cap
from notebooks.explore.terms import Terms, hidden, learned, positions, sliders

designs = {"nobody": (), "coder": ("coder",), "tester": ("tester",), "both": ("coder", "tester")}
exact = {name: ib.analyse(pipeline(told)) for name, told in designs.items()}
parts = {name: (hidden(a), learned(a, 0)) for name, a in exact.items()}
rows = ["| told | interface gap | earned | of the oracle's | handoffs |", "| --- | --- | --- | --- | --- |"]
for name, a in exact.items():
    gap, found = parts[name]
    earned, best = a.d @ a.interface_value.v, a.d @ a.v_star
    rows.append(f"| {name} | {gap.value:.3f} | {earned:.3f} | {earned / best:.0%} | {found.constant / 0.01**2:,.0f} |")
Markdown("\n".join(rows))


# %% [markdown]
# Telling the coder alone buys nothing: whatever it does differently, the tester cannot see. Told the tester, agents
# decide as well as someone who sees everything. Some gap is left: their values are off and their choices are not.

# %%
def budget(told, handoffs, ax=None):
    gap, found = parts[told]
    at = Terms(gap, found.error, found.residual(handoffs))
    name = f"told: {told}, {handoffs:,} handoffs"
    return curves.budget(at, found.constant, handoffs, trivial_cap(exact[told]), name=name, ax=ax)


positions(budget, *({"told": name, "handoffs": 10**4} for name in designs));

# %%
sliders(budget, told=list(designs), handoffs=[10**k for k in range(3, 9)])

# %% [markdown]
# ## From a log
#
# A running system has no table of outcomes. It can write down its handoffs: put `ib.Recorder` into your own agent loop
# ([the format](../docs/logs.md)). Here is such a loop; `context` is the richest view you can record, and what an
# interface gap is estimated from.

# %%
import random
from pathlib import Path
from tempfile import TemporaryDirectory


def work(recorder, number, rng):
    (state,) = rng.choices(list(START), list(START.values()))
    task = recorder.start(number, agent=state[0], observation=observe(state), context=list(state))
    while not task.done:
        option = rng.choice(OPTIONS[state[0]])
        found = outcomes(state, option)
        (o,) = rng.choices(found, [each.prob for each in found])
        state, more = o.next_state, {}
        if state is not None:
            more = {"next_agent": state[0], "next_observation": observe(state), "next_context": list(state)}
        task.handoff(option, reward=o.reward, duration=o.duration, done=state is None, probability=0.5, **more)


# %%
with TemporaryDirectory() as folder:
    path, rng = Path(folder) / "pipeline.jsonl", random.Random(0)
    with ib.Recorder(path, gamma=0.9) as recorder:
        for number in range(5000):
            work(recorder, number, rng)
    log, report = ib.read_log(path)
Markdown(f"{report.tasks} tasks, {len(log)} handoffs, {'nothing' if report.faultless else 'something'} torn or missing.")

# %% [markdown]
# `diagnose` needs nothing but the log. Orange marks: the exact errors, which a real log would not show
# ([how to read it](../docs/diagnose.md)).

# %%
from estimators import td_noise
from icq_bounds.diagnosis.diagnosis import root
from icq_bounds.diagnosis.words import words

found = ib.diagnose(log)
a = exact["nobody"]
truth = {"interface": a.norm_d_state(a.gap), "approximation": 0.0}
truth["residual"] = root(td_noise.residual_constant(a), len(log)).value
curves.diagnosed(found.terms, truth);

# %%
from rich.console import Console

from icq_bounds.diagnosis import page as diagnose_page

console = Console(width=96, force_jupyter=False, color_system=None)
with console.capture() as page:
    diagnose_page.show(found, words(found, log, report), console)
print(page.get())

# %% [markdown]
# The log points at the tester, as the exact analysis did. `icq diagnose FILE` prints this page in a
# terminal, and saves it with `--html`.
#
# **Your turn.** Replace `OPTIONS`, `START`, `observe` and `outcomes` by yours, or `ib.read_log` your own. More:
# [your own model](../docs/howto/own-model.md), [your own class](../docs/howto/own-class.md), [logs](../docs/logs.md).
