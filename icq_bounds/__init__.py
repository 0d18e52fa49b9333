"""Learn handoff workflows with IC-Q, split their error in three, and hold each part beside its bound.

    import icq_bounds as ib
    check = ib.verify(ib.dials(agents=3, gap=0.5), handoffs=100_000)

Everything meant for others is a name here, loaded when it is first used.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bounds.approximation.certificate import certificate_oracle
    from bounds.core.bound import Assumption as Assumption
    from bounds.core.bound import Bound as Bound
    from bounds.core.bound import Verdict as Verdict
    from bounds.theorem import Theorem as Theorem
    from estimators.decomposition import Decomposition as Decomposition
    from estimators.decomposition import decompose as decompose
    from estimators.interface import interface_gap as interface_gap
    from estimators.interface import local_gap_by_agent as local_gap_by_agent
    from estimators.logs.log import Log as Log
    from estimators.logs.reader import read
    from estimators.logs.recorder import Recorder as Recorder
    from estimators.logs.simulate import simulate as simulate
    from estimators.statistics.estimate import Estimate as Estimate
    from icq.baselines import centralised as centralised
    from icq.baselines import greedy_value as greedy_value
    from icq.baselines import independent as independent
    from icq.build import Outcome as Outcome
    from icq.build import Workflow as Workflow
    from icq.build import from_functions as from_functions
    from icq.build import from_table as from_table
    from icq.exact import Analysis as Analysis
    from icq.exact import analyse as analyse
    from icq.learn.learner import Record as Record
    from icq.matrices import from_matrices as from_matrices
    from icq.reason import Reason as Reason
    from icq.smdp import ICSMDP as ICSMDP
    from icq_bounds.check import Check as Check
    from icq_bounds.check import TermCheck as TermCheck
    from icq_bounds.check import learn as learn
    from icq_bounds.check import verify as verify
    from icq_bounds.diagnosis.diagnosis import diagnose as diagnose
    from icq_bounds.error_theorem import theorem_report
    from icq_bounds.figures.sweep import plot_along as plot_along
    from icq_bounds.instances import dials as dials
    from icq_bounds.instances import garnet as garnet
    from icq_bounds.instances import routing as routing
    from icq_bounds.learners import features as features
    from icq_bounds.learners import network as network
    from icq_bounds.learners import table as table
    from icq_bounds.pages.report import report as report
    from icq_bounds.sweep import dataset

    certificate, read_log, theorem = certificate_oracle, read, theorem_report
    load, load_sweep = ICSMDP.load, dataset.load
    __version__: str

# Where each name lives: a module, and the name in it where it is another one there.
_HOME = {
    "Analysis": "icq.exact",
    "Assumption": "bounds.core.bound",
    "Bound": "bounds.core.bound",
    "Check": "icq_bounds.check",
    "Decomposition": "estimators.decomposition",
    "Estimate": "estimators.statistics.estimate",
    "ICSMDP": "icq.smdp",
    "Log": "estimators.logs.log",
    "Outcome": "icq.build",
    "Reason": "icq.reason",
    "Record": "icq.learn.learner",
    "Recorder": "estimators.logs.recorder",
    "TermCheck": "icq_bounds.check",
    "Theorem": "bounds.theorem",
    "Verdict": "bounds.core.bound",
    "Workflow": "icq.build",
    "analyse": "icq.exact",
    "centralised": "icq.baselines",
    "certificate": "bounds.approximation.certificate:certificate_oracle",
    "decompose": "estimators.decomposition",
    "diagnose": "icq_bounds.diagnosis.diagnosis",
    "dials": "icq_bounds.instances",
    "features": "icq_bounds.learners",
    "from_functions": "icq.build",
    "from_matrices": "icq.matrices",
    "from_table": "icq.build",
    "garnet": "icq_bounds.instances",
    "greedy_value": "icq.baselines",
    "independent": "icq.baselines",
    "interface_gap": "estimators.interface",
    "learn": "icq_bounds.check",
    "load": "icq.smdp:ICSMDP.load",
    "load_sweep": "icq_bounds.sweep.dataset:load",
    "local_gap_by_agent": "estimators.interface",
    "network": "icq_bounds.learners",
    "plot_along": "icq_bounds.figures.sweep",
    "read_log": "estimators.logs.reader:read",
    "report": "icq_bounds.pages.report",
    "routing": "icq_bounds.instances",
    "simulate": "estimators.logs.simulate",
    "table": "icq_bounds.learners",
    "theorem": "icq_bounds.error_theorem:theorem_report",
    "verify": "icq_bounds.check",
}
__all__ = list(_HOME)

if not TYPE_CHECKING:  # type checkers read the imports above, and know of no other name

    def __getattr__(name: str) -> object:
        if name == "__version__":
            found = importlib.import_module("importlib.metadata").version("icq-bounds")
        elif name in _HOME:
            module, _, path = _HOME[name].partition(":")
            found = importlib.import_module(module)
            for part in (path or name).split("."):
                found = getattr(found, part)
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = found
        return found

    def __dir__() -> list[str]:
        return [*__all__, "__version__"]
