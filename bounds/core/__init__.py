"""What a bound is, how it is held against an observation, and how it reads."""
