"""What is recorded: runs and models, found again to be listed, loaded, sampled and evaluated."""
