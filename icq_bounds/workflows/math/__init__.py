"""A cheap and a strong language model share mathematical questions."""
