"""What is proved: one lemma or theorem per function, its docstring is the statement."""
