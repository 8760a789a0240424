"""How products reach the machine's limit: threads, blocks, narrow weights. Readers of the model may skip this room."""
