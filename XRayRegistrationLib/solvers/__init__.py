"""Levenberg-Marquardt, global search, CMA-ES and first-order solvers."""
