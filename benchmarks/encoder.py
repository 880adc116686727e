"""Is an image encoder worth having: what a linear read-out finds in its patch tokens, against the same from nothing.

Frames come from episodes on seeds that no training draws. One ridge regression per target reads all tokens of one
frame, flattened: where the object and the grippers are, and whether a gripper touches an object. Its strength is
chosen by cross-validation within the training episodes; errors are over other episodes. Every contender gets the same
frames, split and procedure: tokens of the encoder, tokens of a randomly initialised network of the same shape, and
pixels, at the resolution that has as many numbers as the tokens and at full resolution.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from embodichain.app.frames import FrameSession, FrameSet, photographed, read_part, write_part
from embodichain.contracts import Recipe, seed_range
from embodichain.encoders.dinov3 import DINOv3Encoder
from envs import RenderConfig
from tasks.session import sim_hash

TASKS = ("pick_place", "handover", "two_arm_lift")  # one object each: there is no doubt which one is meant
FIRST_SEED = 500_000  # of the range `tune`: scenes that no score uses
STRENGTHS = 10.0 ** np.arange(-5.0, 2.5, 0.5)  # of the ridge, in units of the mean squared norm of a row
FOLDS, RESAMPLES = 4, 1000
SIZE, EVERY = 128, 12  # pixels; control steps between frames


def recipes_of(tasks: Sequence[str], episodes: int, domain: str) -> Iterator[Recipe]:
    """Tasks in turn, the same seeds whatever the domain."""
    for i in range(episodes):
        seed = seed_range("tune").at(FIRST_SEED + i)
        yield Recipe(task=tasks[i % len(tasks)], seed=seed, domain=domain, sim_hash=sim_hash())


def frames_of(domain: str, episodes: int, keep: Path | None = None) -> FrameSet:
    """What the front camera saw of so many episodes; those without a plan are left out.

    With `keep`, the frames of a domain are one file in that folder, taken if it is there and else written. Raises
    `ValueError` for a file that is no frame set.
    """
    path = keep / f"{domain}-{episodes}.npz" if keep else None
    if path is not None and path.exists():
        return read_part(path)
    session = FrameSession(RenderConfig(cameras=("front",), width=SIZE, height=SIZE), every=EVERY)
    try:
        frames = FrameSet.joined(list(photographed(recipes_of(TASKS, episodes, domain), session)))
    finally:
        session.close()
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_part(path, frames)
    return frames


@dataclass(frozen=True, kw_only=True)
class Split:
    """Rows to learn from, rows to test on and the folds within the former, by whole episodes."""

    train: np.ndarray
    test: np.ndarray
    fold: np.ndarray

    @classmethod
    def of(cls, episode: np.ndarray, *, seed: int, test_share: float = 1 / 3) -> Split:
        """A seeded split. Raises `ValueError` for fewer than 8 episodes."""
        names = np.unique(episode)
        if len(names) < 2 * FOLDS:
            raise ValueError(f"{len(names)} episodes, expected at least {2 * FOLDS}")
        order = np.random.default_rng(seed).permutation(names)
        tested = order[: max(FOLDS, round(test_share * len(names)))]
        test, train = np.isin(episode, tested), ~np.isin(episode, tested)
        place = {name: i for i, name in enumerate(order)}
        fold = np.array([place[name] % FOLDS for name in episode[train]])
        return cls(train=np.flatnonzero(train), test=np.flatnonzero(test), fold=fold)


class Ridge:
    """Ridge regression through the kernel of rows: cheap where there are fewer rows than columns."""

    def __init__(self, features_ND: np.ndarray, split: Split) -> None:
        centred = features_ND.astype(np.float32) - features_ND[split.train].astype(np.float32).mean(axis=0)
        kernel = (centred @ centred[split.train].T).astype(np.float64)
        size = np.trace(kernel[split.train]) / len(split.train)
        self._split, self._all = split, kernel / (size or 1.0)

    def _solve(self, inside: np.ndarray, rows: np.ndarray, target: np.ndarray, strength: float) -> np.ndarray:
        """Predictions for `rows` of all, learned from positions `inside` of the training rows."""
        known, new = self._all[self._split.train[inside]][:, inside], self._all[rows][:, inside]
        across = known.mean(axis=0)  # rows are taken from the mean of those learned from, which is each fold's own
        new = new - new.mean(axis=1, keepdims=True) - across + across.mean()
        known = known - across[:, None] - across + across.mean()
        mean = target[inside].mean(axis=0)
        return new @ np.linalg.solve(known + strength * len(inside) * np.eye(len(inside)), target[inside] - mean) + mean

    def fit(self, target_NK: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
        """Out-of-fold predictions of the training rows, those of the test rows, and the strength chosen."""
        split = self._split
        target = target_NK[split.train].astype(np.float64)
        best: tuple[float, float, np.ndarray] | None = None
        for strength in STRENGTHS:
            guess = np.empty_like(target)
            for fold in range(FOLDS):
                inside, out = np.flatnonzero(split.fold != fold), np.flatnonzero(split.fold == fold)
                guess[out] = self._solve(inside, split.train[out], target, strength)
            error = float(np.square(guess - target).mean())
            if best is None or error < best[0]:
                best = (error, strength, guess)
        assert best is not None
        everything = np.arange(len(split.train))
        return best[2], self._solve(everything, split.test, target, best[1]), best[1]


def area_under(score: np.ndarray, truth: np.ndarray) -> float:
    """Area under the ROC curve: how often a touching gripper scores above one that does not touch, ties half."""
    order = np.unique(score, return_inverse=True)[1]
    counts = np.bincount(order)
    rank = (np.cumsum(counts) - (counts - 1) / 2)[order]
    positive = int(truth.sum())
    negative = len(truth) - positive
    if not positive or not negative:
        return float("nan")
    return float((rank[truth].sum() - positive * (positive + 1) / 2) / (positive * negative))


def balanced_accuracy(guess: np.ndarray, truth: np.ndarray) -> float:
    """Mean of the hit rates among touching and among not touching."""
    return float((guess[truth].mean() + (~guess[~truth]).mean()) / 2) if truth.any() and not truth.all() else np.nan


def threshold_of(score: np.ndarray, truth: np.ndarray) -> float:
    """The one of 101 quantiles of the score that is best by balanced accuracy."""
    levels = np.quantile(score, np.linspace(0.0, 1.0, 101))
    return float(levels[int(np.nanargmax([balanced_accuracy(score > level, truth) for level in levels]))])


def over_episodes(
    episode: np.ndarray, measure: Callable[[np.ndarray], float], *, seed: int = 0
) -> tuple[float, float, float]:
    """A measure of rows, and its 95 % interval over resampled episodes (percentile bootstrap)."""
    groups = [np.flatnonzero(episode == name) for name in np.unique(episode)]
    rng = np.random.default_rng(seed)
    draws = [
        measure(np.concatenate([groups[i] for i in rng.integers(len(groups), size=len(groups))]))
        for _ in range(RESAMPLES)
    ]
    low, high = np.nanquantile(draws, [0.025, 0.975])
    return measure(np.arange(len(episode))), float(low), float(high)


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What was read out of one contender's features, on the test rows.

    Attributes:
        object_error, tool_error: m, f64[M] and f64[M] (mean of both grippers).
        contact: f64[2M], scores of both grippers; `touches` is the truth, `judged` the thresholded guess.
    """

    dimensions: int
    object_error: np.ndarray
    tool_error: np.ndarray
    contact: np.ndarray
    judged: np.ndarray
    touches: np.ndarray


def read_out(features_ND: np.ndarray, frames: FrameSet, split: Split) -> Reading:
    """The probes of one contender."""
    ridge = Ridge(features_ND, split)
    test = frames.where(split.test)
    _, where_object, _ = ridge.fit(frames.object_position)
    _, where_tools, _ = ridge.fit(frames.tool_position.reshape(len(frames), 6))
    inside, contact, _ = ridge.fit(frames.contact.astype(np.float64))
    known = frames.contact[split.train]
    judged = np.stack([contact[:, arm] > threshold_of(inside[:, arm], known[:, arm]) for arm in (0, 1)], axis=1)
    return Reading(
        dimensions=features_ND.shape[1],
        object_error=np.linalg.norm(where_object - test.object_position, axis=1),
        tool_error=np.linalg.norm(where_tools.reshape(-1, 2, 3) - test.tool_position, axis=2).mean(axis=1),
        contact=contact.ravel(),
        judged=judged.ravel(),
        touches=test.contact.ravel(),
    )


def contenders(frames: FrameSet, weights: str) -> Iterator[tuple[str, np.ndarray]]:
    """Name and features f[N, D] of each, one after the other."""
    rgb, (height, width) = frames.rgb, frames.rgb.shape[1:3]
    encoder = DINOv3Encoder(weights=weights, views=1, height=height, width=width)
    yield encoder.id, _tokens(encoder, rgb)
    fresh = encoder.random_twin()
    yield f"random init, same shape ({fresh.id})", _tokens(fresh, rgb)
    side = round((encoder.max_tokens * encoder.channels / 3) ** 0.5)
    small = np.stack([np.asarray(Image.fromarray(frame).resize((side, side), Image.Resampling.BOX)) for frame in rgb])
    yield f"pixels {side} x {side}", small.reshape(len(rgb), -1) / 255.0
    yield f"pixels {width} x {height}", rgb.reshape(len(rgb), -1) / 255.0
    yield "nothing (the mean)", np.zeros((len(rgb), 1))


def _tokens(encoder: DINOv3Encoder, rgb: np.ndarray) -> np.ndarray:
    return encoder.encode_rgb(rgb[:, None]).astype(np.float32).reshape(len(rgb), -1)


def _figures(seen: Reading, first: Reading, episode: np.ndarray) -> dict[str, object]:
    """Errors and contact of a contender, and how much worse than `first` it places objects."""
    twice = np.repeat(episode, 2)  # contact is told of either gripper

    def worse(i: np.ndarray) -> float:
        return 100.0 * float((seen.object_error[i] - first.object_error[i]).mean())

    return {
        **_columns("object_cm", over_episodes(episode, lambda i: 100.0 * float(seen.object_error[i].mean()))),
        **_columns("tool_cm", over_episodes(episode, lambda i: 100.0 * float(seen.tool_error[i].mean()))),
        **_columns("contact_auc", over_episodes(twice, lambda i: area_under(seen.contact[i], seen.touches[i]))),
        **_columns(
            "contact_accuracy", over_episodes(twice, lambda i: balanced_accuracy(seen.judged[i], seen.touches[i]))
        ),
        **_columns("object_cm_worse", over_episodes(episode, worse)),
    }


def run(frames: FrameSet, weights: str, domain: str, *, seed: int = 0) -> list[dict[str, object]]:
    """One row per contender; `_vs` columns are differences to the first one, paired by episode."""
    split = Split.of(frames.episode, seed=seed)
    episode = frames.episode[split.test]
    rows: list[dict[str, object]] = []
    first: Reading | None = None
    for name, features in contenders(frames, weights):
        seen = read_out(features, frames, split)
        first = first or seen
        rows.append(
            {
                "domain": domain,
                "features": name,
                "dimensions": seen.dimensions,
                "train_frames": len(split.train),
                "test_frames": len(split.test),
                "test_episodes": len(np.unique(episode)),
                **_figures(seen, first, episode),
            }
        )
    return rows


def _columns(name: str, values: tuple[float, float, float]) -> dict[str, object]:
    return dict(zip((name, f"{name}_low", f"{name}_high"), values, strict=True))
