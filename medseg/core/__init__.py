"""The values that every step takes and returns: numpy, pydantic and the standard library only."""
