"""Ahead-of-time plans: the real sampling and update programs, compiled for a TPU topology on a machine that has
none.
"""
