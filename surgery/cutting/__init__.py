"""Cutting: slice the tensors, write the folds, correct the modules' own numbers."""
