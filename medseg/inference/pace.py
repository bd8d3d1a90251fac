"""How long a run will take, from one window that was timed."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Pace", "in_words"]


@dataclass(frozen=True)
class Pace:
    """What a run is made of.

    Parameters
    ----------
    n_windows
        Windows that are run.
    n_flips
        Passes a window in this run: 1, or one for each combination of mirrored axes.
    n_all_flips
        Passes a window with all test-time flips that the model has.
    """

    n_windows: int
    n_flips: int
    n_all_flips: int

    def estimate(self, seconds_per_window: float) -> str:
        """About how long the network takes, with and without test-time flips where the model has some."""
        total = self.n_windows * seconds_per_window
        if self.n_all_flips == 1:
            return f"about {in_words(total)}"
        if self.n_flips == 1:
            return f"about {in_words(total)}; with test-time flips {in_words(total * self.n_all_flips)}"
        return f"about {in_words(total)}; without test-time flips {in_words(total / self.n_flips)}"


def in_words(seconds: float) -> str:
    """A duration as people say it: seconds, minutes, or hours and minutes.

    Examples
    --------
    >>> in_words(12.3), in_words(250), in_words(8100)
    ('12 s', '4 min', '2 h 15 min')
    """
    if seconds < 90:
        return f"{max(round(seconds), 1)} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
