"""How fast a model runs, beside how fast the machine could."""
