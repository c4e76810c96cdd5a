"""How prompts start: at random, as published (`random.py`), or from the frozen encoder's own tokens."""
