"""Training: the trainer's loop, batches, forward passes and hooks, trainable parameters (full or LoRA), trace."""
