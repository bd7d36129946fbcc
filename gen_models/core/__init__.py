"""What every family shares: the contract, the learner, checkpoints."""
