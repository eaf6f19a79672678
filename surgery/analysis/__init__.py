"""Understanding a model: capture it, run it on unit ids, run it on known constants."""
