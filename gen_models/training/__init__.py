"""Trains one model: the learner, its optimizer, batches, precision, CUDA graphs, DDP."""
