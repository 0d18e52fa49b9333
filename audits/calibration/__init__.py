"""Coverage and bias of every estimator: make calibrate, or python -m audits.calibration."""
