"""Engines start workers and watch them; the interface that they share is `tuner.engines.base`."""
