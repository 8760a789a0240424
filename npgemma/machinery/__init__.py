"""A loaded model around the forward pass: its backend, the settings of an answer, loading."""
