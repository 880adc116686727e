"""The gallery: a page with pictures and videos of every task, one after the other under every stage of randomisation.

For a person who wants to judge realism by looking. The videos are episodes as actors make them, to their verdicts.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
from rich.console import Console
from rich.progress import Progress

from embodichain.app.filming import WHITE, EpisodeFilm, captioned, film_episode, filmed_session, recipe_of_test
from embodichain.evaluation.evaluator import write_video
from tasks.registry import task_info

DOMAINS = ("clean", "spatial", "default", "default+visual", "default+reach", "default+recovery")
MOMENTS, OVERVIEW_MOMENTS = 5, 3  # pictures of an episode, on its sheet and in the overview
COLUMNS = 2  # tasks beside each other in the overview
CROP = np.s_[90:330, 80:400]  # of a video frame: the table between the arms
EVERY = 2  # control steps between video frames
STYLE = "body{font:15px sans-serif;max-width:1100px;margin:2em auto}img{max-width:100%}video{width:31%;margin:.3%}"


def write_gallery(folder: Path, tasks: list[str], seed: int, domains: Sequence[str] = DOMAINS) -> Path:
    """Write `index.html`, a contact sheet per task and a video per task and domain, and `tasks.png` with all tasks.

    The last one shows `default`, or the first domain where that is not among them.

    Returns the page. Raises `ConfigError` where there is no renderer.
    """
    session = filmed_session("tasks gallery", every=EVERY)
    folder.mkdir(parents=True, exist_ok=True)
    sections, overview, shown = [], [], "default" if "default" in domains else domains[0]
    with Progress(console=Console(stderr=True)) as progress:
        bar = progress.add_task("episodes", total=len(tasks) * len(domains))
        for name in tasks:
            rows, videos = [], []
            for domain in domains:
                film = film_episode(session, recipe_of_test(name, seed, domain))
                rows.append(moments(film, domain))
                video = f"{name}_{domain.replace('+', '_')}.mp4"
                write_video(folder / video, [frame[::2, ::2] for frame in film.frames], film.fps)
                videos.append((video, domain, film))
                if domain == shown:
                    overview.append(moments(film, name, OVERVIEW_MOMENTS))
                progress.advance(bar)
            imageio.imwrite(folder / f"{name}.jpg", np.concatenate(rows), quality=85)
            sections.append(_section(name, videos))
    session.close()
    imageio.imwrite(folder / "tasks.png", side_by_side(overview))
    page = folder / "index.html"
    title = f"Tasks under every stage of randomisation, seed {seed}"
    page.write_text(
        f"<!doctype html><meta charset=utf-8><title>{title}</title><style>{STYLE}</style><h1>{title}</h1>"
        + "".join(sections)
    )
    return page


def side_by_side(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Rows u8[H, W, 3] of one size in `COLUMNS` columns; white where there is none left."""
    lines = [rows[i : i + COLUMNS] for i in range(0, len(rows), COLUMNS)]
    lines[-1] = [*lines[-1], *[np.full_like(rows[0], 255)] * (COLUMNS - len(lines[-1]))]
    return np.concatenate([np.concatenate(line, axis=1) for line in lines])


def moments(film: EpisodeFilm, label: str, count: int = MOMENTS) -> np.ndarray:
    """A row of `count` pictures u8[H, W, 3] from the start of an episode to its end."""
    picks = np.linspace(0, len(film.shots) - 1, count).round().astype(int)
    small = [film.shots[i].frame[CROP][::2, ::2].copy() for i in picks]
    for frame in small:
        frame[:, -2:] = 255  # a line between moments
    said = f"{label}: {', '.join(film.reasons)}" if film.reasons else label
    return captioned(np.concatenate(small, axis=1), [(said, WHITE)], size=11)


def _section(name: str, videos: list[tuple[str, str, EpisodeFilm]]) -> str:
    info = task_info(name)
    players = "".join(
        f'<video src="{video}" title="{html.escape(_said(domain, film))}" controls muted loop></video>'
        for video, domain, film in videos
    )
    about = f"{info.description} Arms: {info.arms}; split: {info.split}; {len(info.segments)} segments."
    return f'<h2>{name}</h2><p>{html.escape(about)}</p><img src="{name}.jpg" loading=lazy><p>{players}</p>'


def _said(domain: str, film: EpisodeFilm) -> str:
    verdict = f"rejected: {', '.join(film.reasons)}" if film.reasons else "accepted"
    return f"{domain}: {film.shots[-1].caption[0][0]} ({verdict})"
