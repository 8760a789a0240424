"""How the embedded checkpoint was made.

``scenes.py`` draws pictures whose content is known, ``prompts.py`` says what can be asked about them, ``train.py``
(with ``tower.py``) trains the model with the PyTorch twin, and ``evaluate.py`` measures it on pictures it has not seen.
"""
