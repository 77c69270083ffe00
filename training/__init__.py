"""Offline: simulation, data sets, training and evaluation. Imports :mod:`pipeline`, never :mod:`node`."""
