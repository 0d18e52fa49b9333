"""The experiments of `icq reproduce`, each with its cells and its panels."""
