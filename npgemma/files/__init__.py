"""What is read from and written to disk beside the weights: tokenizers, images, JSON."""
