"""Synthetic bodies with lesions whose instances, and where there is one whose volume, are known exactly."""
