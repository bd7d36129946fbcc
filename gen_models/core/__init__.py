"""The family contract, data, configs, errors, randomness, checkpoints and sampling."""
