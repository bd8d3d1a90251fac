"""Scores of cases and cohorts, with intervals."""
