"""Engines start workers and watch them; `tuner.engines.interface` is what they share."""
