"""From a handoff log to one page: which error dominates."""
