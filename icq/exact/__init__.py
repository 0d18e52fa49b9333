"""The exact analysis of an IC-SMDP, float64 and free of JAX: fixed points, stationary laws, contraction, mixing."""

from icq.exact.analysis import (
    DENSE_ENTRIES,
    TINY,
    Analysis,
    AnalysisError,
    Model,
    analyse,
    contraction,
    handoff_chain,
    interface_model,
    oracle_model,
    outcome_discount,
    stationary_weights,
)
from icq.exact.partial import optimum, recurrent

__all__ = [
    "DENSE_ENTRIES",
    "TINY",
    "Analysis",
    "AnalysisError",
    "Model",
    "analyse",
    "contraction",
    "handoff_chain",
    "interface_model",
    "optimum",
    "oracle_model",
    "outcome_discount",
    "recurrent",
    "stationary_weights",
]
