"""Grids of settings: axes, cells, the engine that runs them, the store that keeps them, the dataset."""
