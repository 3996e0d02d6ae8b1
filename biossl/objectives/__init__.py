"""Pretraining objectives: the contract in ``base.py``, pure losses in ``losses.py``, one file a method."""
