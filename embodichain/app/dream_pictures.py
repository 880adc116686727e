"""Pictures of a `Dream`: what was seen beside what was imagined, as films, maps of features and plots of chunks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from embodichain.app.filming import WHITE, captioned
from embodichain.app.imagining import VIDEO_EVERY, Dream
from embodichain.contracts import ARMS, UnifiedAction
from embodichain.encoders.state import Places, places_of

SIDE = 360  # pixels of a panel
SPAN = 1.1  # m of table that a top view shows
GROUND, TRUE, IMAGINED, GOAL = (28, 30, 36), (225, 225, 230), (255, 150, 60), (90, 190, 120)
COLUMNS = 8  # frames in a sheet at most
LEAST_SPAN = 0.04  # of a chunk plot's axis, in its own unit

Panel = Callable[[int], np.ndarray]  # frame -> u8[SIDE, SIDE, 3]


def top_view(true: Places, imagined: Places, mask: np.ndarray, goals: slice) -> np.ndarray:
    """u8[SIDE, SIDE, 3]: the table from above as the front camera sees it, left arm on the left.

    Filled grey: where things are (goals green). Orange outlines: where they are imagined. Height is written beside
    a gripper, in cm.
    """
    image = Image.new("RGB", (SIDE, SIDE), GROUND)
    draw = ImageDraw.Draw(image)
    arms = len(mask) - len(ARMS)
    for places, real in ((true, True), (imagined, False)):
        for i in np.flatnonzero(mask).tolist():
            goal = goals.start <= i < goals.stop
            if goal and not real:
                continue
            line = (GOAL if goal else TRUE) if real else IMAGINED
            x, y = _on_screen(places.position[i, :2])
            if i >= arms:
                radius = 6 + 6 * float(np.clip(places.opening[i], 0.0, 1.0))
                draw.ellipse((x - radius, y - radius, x + radius, y + radius), outline=line, width=3 if real else 2)
                height = f"{ARMS[i - arms][0].upper()} {100 * places.position[i, 2]:.0f}"
                draw.text((x + 14, y - 16 if real else y + 4), height, fill=line)
            else:
                corners = _corners(places, i)
                draw.polygon(corners, fill=(110, 112, 120) if real and not goal else None, outline=line, width=2)
    return np.asarray(image)


def _on_screen(point: np.ndarray) -> tuple[float, float]:
    scale = SIDE / SPAN
    return SIDE / 2 - float(point[1]) * scale, SIDE / 2 - float(point[0]) * scale


def _corners(places: Places, i: int) -> list[tuple[float, float]]:
    """Of a thing's footprint, at least a centimetre wide."""
    along = places.forward[i, :2] / max(float(np.linalg.norm(places.forward[i, :2])), 1e-6)
    across = np.array([-along[1], along[0]])
    half = np.clip(np.abs(places.half_size[i, :2]), 0.005, 0.5)
    signs = ((1, 1), (1, -1), (-1, -1), (-1, 1))
    centre = places.position[i, :2]
    return [_on_screen(centre + a * half[0] * along + b * half[1] * across) for a, b in signs]


def state_panels(dream: Dream, goals: slice) -> list[tuple[str, Panel]]:
    """One panel: true and imagined positions at the frame that the model is looking forward to."""
    seen, foreseen = places_of(dream.tokens), places_of(dream.imagined)

    def panel(j: int) -> np.ndarray:
        later = min(j + 1, len(dream.tokens) - 1)
        return top_view(_at(seen, later), _at(foreseen, j), dream.token_mask, goals)

    return [(f"in {dream.tau} steps: true grey, imagined orange", panel)]


def _at(places: Places, j: int) -> Places:
    return Places(**{name: getattr(places, name)[j] for name in ("position", "forward", "half_size", "opening")})


def image_panels(
    dream: Dream, drawn: tuple[np.ndarray, np.ndarray] | None, grid: tuple[int, int]
) -> list[tuple[str, Panel]]:
    """The first camera's frame to come, and the imagined one: decoded if there is a decoder, else feature colours.

    Args:
        dream: with `rgb`.
        drawn: u8[J, V, H, W, 3] of true and of imagined tokens, or None.
        grid: patches per view, rows and columns.
    """
    assert dream.rgb is not None
    rgb = dream.rgb

    def later(j: int) -> int:
        return min(j + 1, len(rgb) - 1)

    panels: list[tuple[str, Panel]] = [(f"camera, in {dream.tau} steps", lambda j: _fit(rgb[later(j), 0]))]
    if drawn is not None:
        true, foreseen = drawn
        panels += [
            ("its features, drawn", lambda j: _fit(true[later(j), 0])),
            ("imagined, drawn", lambda j: _fit(foreseen[j, 0])),
        ]
        return panels
    seen_map, foreseen_map = feature_colours(dream, grid)
    panels += [
        ("its features", lambda j: _fit(seen_map[later(j), 0], smooth=False)),
        ("imagined", lambda j: _fit(foreseen_map[j, 0], smooth=False)),
    ]
    return panels


def _fit(frame: np.ndarray, *, smooth: bool = True) -> np.ndarray:
    how = Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST
    return np.asarray(Image.fromarray(frame).resize((SIDE, SIDE), how))


def feature_colours(dream: Dream, grid: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """u8[J, V, h, w, 3] of true and of imagined tokens: the three main directions of the true ones as colours."""
    channels = dream.tokens.shape[-1]
    true = dream.tokens.reshape(-1, channels).astype(np.float64)
    mean = true.mean(axis=0)
    directions = np.linalg.svd(true - mean, full_matrices=False)[2][:3]
    low, high = np.quantile((true - mean) @ directions.T, [0.02, 0.98], axis=0)

    def colours(tokens: np.ndarray) -> np.ndarray:
        shares = ((tokens.reshape(-1, channels) - mean) @ directions.T - low) / (high - low)
        return (shares.clip(0.0, 1.0) * 255).astype(np.uint8).reshape(len(tokens), -1, *grid, 3)

    return colours(dream.tokens), colours(dream.imagined)


def film_frames(dream: Dream, panels: Sequence[tuple[str, Panel]]) -> list[np.ndarray]:
    """u8[SIDE, W, 3] per picture of the film: the world now, and beside it the panels of the model's frame."""
    out, made = [], {}
    for n, picture in enumerate(dream.film):
        step = n * VIDEO_EVERY
        j = min(step // dream.tau, len(dream.tokens) - 1)
        if j not in made:
            made[j] = [captioned(panel(j), [(title, WHITE)]) for title, panel in panels]
        height = SIDE * picture.shape[1] // picture.shape[0] // 2 * 2
        now = np.asarray(Image.fromarray(picture).resize((height, SIDE), Image.Resampling.BICUBIC))
        who = "the expert acts" if dream.by_expert else "the model acts"
        out.append(
            np.concatenate(
                [captioned(now, [(dream.instruction, WHITE), (f"{who} | step {step}", WHITE)]), *made[j]], axis=1
            )
        )
    return out


def feature_sheet(dream: Dream, drawn: tuple[np.ndarray, np.ndarray] | None, grid: tuple[int, int], path: Path) -> None:
    """A picture: some frames in columns; camera, features, drawn features, imagined features, drawn; first camera."""
    from matplotlib.figure import Figure

    assert dream.rgb is not None
    true, foreseen = feature_colours(dream, grid)
    last = len(dream.tokens) - 1
    shown = np.unique(np.linspace(1, last, min(COLUMNS, last)).astype(int))
    rows = [("camera", dream.rgb[shown, 0]), ("features", true[shown, 0])]
    rows += [("drawn", drawn[0][shown, 0])] if drawn else []
    rows += [("imagined", foreseen[shown - 1, 0])]
    rows += [("drawn", drawn[1][shown - 1, 0])] if drawn else []
    figure = Figure(figsize=(1.5 * len(shown) + 0.8, 1.55 * len(rows) + 0.3), layout="constrained")
    for r, (name, pictures) in enumerate(rows):
        for c, picture in enumerate(pictures):
            axes = figure.add_subplot(len(rows), len(shown), r * len(shown) + c + 1)
            axes.imshow(picture, interpolation="nearest")
            axes.set_xticks([])
            axes.set_yticks([])
            if c == 0:
                axes.set_ylabel(name)
            if r == 0:
                axes.set_title(f"step {shown[c] * dream.tau}", fontsize=9)
    figure.savefig(path, dpi=110)


def chunk_plot(dream: Dream, control: str, path: Path) -> None:
    """A picture: each dimension over time; black what was done, coloured the chunks that the model wanted."""
    from matplotlib.figure import Figure

    names = ["x, m", "y, m", "z, m"] if control == "eef" else [f"joint {i + 1}, rad" for i in range(7)]
    figure = Figure(figsize=(13, 1.7 * (len(names) + 1)), layout="constrained")
    steps = np.arange(len(dream.action))
    for arm, side in enumerate(ARMS):
        start = (UnifiedAction.eef(arm) if control == "eef" else UnifiedAction.joints(arm)).start
        dims = [*range(start, start + len(names)), UnifiedAction.gripper(arm).start]
        for row, (dim, name) in enumerate(zip(dims, [*names, "gripper, 1 is open"], strict=True)):
            axes = figure.add_subplot(len(dims), len(ARMS), row * len(ARMS) + arm + 1)
            axes.plot(steps, dream.action[:, dim], color="black", linewidth=2.0, label="done")
            for j, chunk in enumerate(dream.chunk):
                at = j * dream.tau + np.arange(len(chunk))
                axes.plot(at, chunk[:, dim], color=f"C{j % 10}", linewidth=1.0)
                axes.plot(at[0], chunk[0, dim], ".", color=f"C{j % 10}", markersize=4)
            low, high = axes.get_ylim()
            if high - low < LEAST_SPAN:  # what stays still is not to look like unrest
                axes.set_ylim((low + high - LEAST_SPAN) / 2, (low + high + LEAST_SPAN) / 2)
            axes.set_ylabel(f"{side}\n{name}", fontsize=8)
            axes.tick_params(labelsize=7)
    who = "the expert" if dream.by_expert else "the model"
    figure.suptitle(
        f"black: what {who} did; coloured: the chunk that the model wanted at each frame (control steps)", fontsize=10
    )
    figure.savefig(path, dpi=100)
