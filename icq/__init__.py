"""The IC-SMDP model, its exact analysis, and the IC-Q learner."""

from icq.learn.flags import set_fast_loops

set_fast_loops()
