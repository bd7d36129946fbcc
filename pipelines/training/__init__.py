"""Trains one config with Ray Train; holds the epoch loop that fused trials share."""
