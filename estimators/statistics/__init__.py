"""Estimates with intervals, and the jackknife behind them."""
