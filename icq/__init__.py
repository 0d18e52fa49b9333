"""The IC-SMDP model, its exact analysis, and the IC-Q learner."""
