"""How well a prediction agrees with a reference, without torch."""
