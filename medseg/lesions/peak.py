"""SUVpeak: the highest mean in a ball of 1 ml."""

from __future__ import annotations

from functools import lru_cache
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from medseg.core.geometry import Geometry
from medseg.lesions.bodies import LesionVoxels
from medseg.lesions.intensity import hottest_voxel

__all__ = ["BALL_RADIUS_MM", "PeakBall", "ball_mean", "highest_ball_mean", "peak_ball"]

BALL_RADIUS_MM = (3.0 * 1000.0 / (4.0 * np.pi)) ** (1.0 / 3.0)
"""Radius of a ball of 1 ml: 6.2035 mm."""

_PARTS = 8  # a voxel that the ball cuts is covered by the share of 8 x 8 x 8 points in it
_NEAR = 1e-5  # of the spread of intensities: voxels this close to the highest mean by a quick FFT are looked at again
_MOST_AGAIN = 256
_DIGITS = 9
_ALL_PAIRS = 200_000  # voxels times ball below which no FFT is needed


class PeakBall:
    """A ball around a voxel center: which voxels it covers, and by which share.

    Parameters
    ----------
    steps
        (B, 3) int64, voxel steps from the center.
    shares
        (B,) float64, 0..1.
    """

    def __init__(self, steps: NDArray[np.int64], shares: NDArray[np.float64]) -> None:
        self.steps, self.shares = steps, shares
        self.reach = np.abs(steps).max(axis=0)

    @property
    def kernel(self) -> NDArray[np.float64]:
        """Shares as an array with the center in its middle."""
        kernel = np.zeros(2 * self.reach + 1)
        kernel[tuple((self.steps + self.reach).T)] = self.shares
        return kernel


def peak_ball(geometry: Geometry) -> PeakBall:
    """The ball of 1 ml on a grid."""
    return _ball(tuple(np.round(geometry.affine[:3, :3], 9).ravel().tolist()))


@lru_cache(maxsize=16)
def _ball(columns: tuple[float, ...]) -> PeakBall:
    basis = np.array(columns).reshape(3, 3)
    reach = np.floor(BALL_RADIUS_MM * np.linalg.norm(np.linalg.inv(basis), axis=1) + 0.5).astype(int)
    steps = np.array(list(product(*(range(-r, r + 1) for r in reach.tolist()))), dtype=np.int64)
    centers = np.linalg.norm(steps @ basis.T, axis=1)
    half = 0.5 * float(np.abs(basis).sum(axis=1).max() * np.sqrt(3.0))
    shares = (centers <= BALL_RADIUS_MM).astype(np.float64)
    cut = np.abs(centers - BALL_RADIUS_MM) <= half
    offsets = (np.arange(_PARTS) + 0.5) / _PARTS - 0.5
    points = np.stack(np.meshgrid(offsets, offsets, offsets, indexing="ij"), axis=-1).reshape(-1, 3)
    covered = np.square((steps[cut][:, None] + points) @ basis.T).sum(axis=-1) <= BALL_RADIUS_MM**2
    shares[cut] = covered.mean(axis=1)
    return PeakBall(steps[shares > 0], shares[shares > 0])


def ball_mean(channel: NDArray[Any], centers: NDArray[Any], ball: PeakBall) -> NDArray[np.float64]:
    """Mean intensity (P,) in balls around voxels (P, 3); the part of a ball beyond the scan does not count."""
    places = centers[:, None] + ball.steps
    inside = np.asarray(((places >= 0) & (places < np.array(channel.shape))).all(axis=-1))
    i, j, k = np.moveaxis(np.where(inside[..., None], places, 0), -1, 0)
    shares = np.where(inside, ball.shares, 0.0)
    means: NDArray[np.float64] = (channel[i, j, k] * shares).sum(axis=1) / shares.sum(axis=1)
    return means


def highest_ball_mean(
    voxels: LesionVoxels, number: int, channel: NDArray[Any], ball: PeakBall
) -> tuple[float, NDArray[np.int64]]:
    """Highest mean in a ball whose center is a voxel of the lesion, and that voxel (3,).

    Large lesions are searched by FFT in single precision; what comes near the highest is computed again.
    """
    centers = np.stack(voxels.of(number), axis=-1).astype(np.int64)
    if len(centers) * len(ball.steps) > _ALL_PAIRS:
        rough = _means_by_fft(voxels, number, channel, ball, np.float32)
        near = rough >= rough.max() - _NEAR * max(float(np.abs(rough).max()), float(np.ptp(rough)), 1e-30)
        if np.count_nonzero(near) > _MOST_AGAIN:  # a plateau: many are as high
            rough = _means_by_fft(voxels, number, channel, ball, np.float64)
            near = np.zeros_like(near)
            near[hottest_voxel(centers, np.round(rough, _DIGITS), voxels)] = True
        centers = centers[near]
    means = np.concatenate(
        [
            ball_mean(channel, part, ball)
            for part in np.array_split(centers, 1 + len(centers) * len(ball.steps) // 10**6)
        ]
    )
    means = np.round(means, _DIGITS)
    best = hottest_voxel(centers, means, voxels)  # rounded, so that sums in another order make no other place the peak
    return float(means[best]), centers[best]


def _means_by_fft(
    voxels: LesionVoxels, number: int, channel: NDArray[Any], ball: PeakBall, dtype: type[np.floating[Any]]
) -> NDArray[np.floating[Any]]:
    """Means of all balls around the lesion's voxels."""
    reach = ball.reach.tolist()
    box = voxels.box(number, (reach[0], reach[1], reach[2]))
    part = channel[box].astype(dtype)
    level = part.mean()
    shape = [fft.next_fast_len(size + r, real=True) for size, r in zip(part.shape, reach, strict=True)]
    kernel = fft.rfftn(ball.kernel[::-1, ::-1, ::-1].astype(dtype), shape)
    start = np.array([extent.start for extent in box])
    places = tuple(np.stack(voxels.of(number)) - start[:, None] + ball.reach[:, None])

    def summed(values: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
        sums: NDArray[np.floating[Any]] = fft.irfftn(fft.rfftn(values, shape) * kernel, shape)
        at_centers: NDArray[np.floating[Any]] = sums[tuple(p % size for p, size in zip(places, shape, strict=True))]
        return at_centers

    low, high = voxels.low[number - 1] - ball.reach, voxels.high[number - 1] + ball.reach
    is_whole = bool((low >= 0).all() and (high <= channel.shape).all())
    covered = ball.shares.sum() if is_whole else summed(np.ones_like(part))
    means: NDArray[np.floating[Any]] = summed(part - level) / covered + level
    return means
