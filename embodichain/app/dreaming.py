"""From a checkpoint to pictures of what it imagines: puts model, encoder, simulator, decoder and pictures together."""

from __future__ import annotations

from pathlib import Path

from embodichain.app.components import make_encoder, make_session
from embodichain.app.config import RunConfig
from embodichain.app.dream_pictures import (
    chunk_plot,
    feature_sheet,
    film_frames,
    image_panels,
    state_panels,
)
from embodichain.app.imagining import VIDEO_EVERY, Dream, dream, figures_of
from embodichain.app.settings import ConfigError
from embodichain.contracts import Recipe
from embodichain.doctor import renderer_available
from embodichain.encoders import StateEncoder
from embodichain.encoders.decoder import FrameDecoder
from embodichain.encoders.weights import EMBEDDED, EMBEDDED_FOLDER, PATCH
from embodichain.evaluation.evaluator import write_video
from learner.checkpoint import load_model
from tasks.registry import slots
from tasks.session import sim_hash


class DreamStudio:
    """One checkpoint with all that it takes to see what it imagines.

    Raises `ConfigError` for a checkpoint that cannot be read, does not fit its encoder or these tasks, or imagines
    nothing, and where frames are needed and cannot be rendered.
    """

    def __init__(self, config: RunConfig, checkpoint: str, tasks: list[str]) -> None:
        self._config = config
        self._film, why = renderer_available()
        if not self._film and config.encoder.name != "state":
            raise ConfigError(f"imagine: encoder.name={config.encoder.name} needs a renderer and there is none: {why}")
        try:
            self._encoder = make_encoder(config)
            self._model = load_model(checkpoint, encoder_id=self._encoder.id)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        if self._model.config.kind == "flow_policy":
            raise ConfigError(f"checkpoint={checkpoint}: a flow_policy imagines nothing; expected one of a world model")
        if isinstance(self._encoder, StateEncoder):
            need, have = slots(tasks), slots(config.active_tasks)
            if any(need[key] > have[key] for key in have):
                raise ConfigError(f"--tasks={' '.join(tasks)}: the checkpoint has slots for {have}, they need {need}")
        self._decoder = self._find_decoder()
        self._session = make_session(config, render=self._film)

    def _find_decoder(self) -> FrameDecoder | None:
        """The one that lies beside the encoder's weights, if it is of these weights."""
        if self._config.encoder.name == "state":
            return None
        place = self._config.encoder.weights
        folder = EMBEDDED_FOLDER if place == EMBEDDED else Path(place).expanduser()
        if not (folder / "decoder.safetensors").is_file():
            return None
        try:
            decoder = FrameDecoder.load(folder)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        return decoder if decoder.encoder_id == self._encoder.id else None

    def shoot(
        self, task: str, seed: int, *, domain: str, by_expert: bool, limit: int, folder: Path
    ) -> dict[str, object]:
        """Make one rollout and write its files; a row of figures.

        Raises `PlanFailure` if the expert has no plan for the seed, `NotFinite` for a model that puts out such numbers.
        """
        recipe = Recipe(task=task, seed=seed, domain=domain, sim_hash=sim_hash())
        seen = dream(
            self._model, self._session, self._encoder, recipe, by_expert=by_expert, limit=limit, film=self._film
        )
        self._draw(seen, task, folder)
        acts = "expert" if by_expert else "model"
        row: dict[str, object] = {"task": task, "seed": seed, "domain": domain, "acts": acts, "steps": len(seen.action)}
        return row | {"success": seen.success, "frames": len(seen.tokens), **figures_of(seen, self._model)}

    def _draw(self, seen: Dream, task: str, folder: Path) -> None:
        chunk_plot(seen, self._model.data.control, folder / f"{task}-chunks.png")
        if isinstance(self._encoder, StateEncoder):
            first = self._encoder.max_objects
            panels = state_panels(seen, slice(first, first + self._encoder.max_goals))
        else:
            size = (self._config.encoder.height, self._config.encoder.width)
            grid = (size[0] // PATCH, size[1] // PATCH)
            drawn = None
            if self._decoder is not None:
                views = len(self._config.encoder.cameras)
                true, foreseen = (
                    self._decoder.draw(tokens, views=views, height=size[0], width=size[1])
                    for tokens in (seen.tokens, seen.imagined)
                )
                drawn = (true, foreseen)
            panels = image_panels(seen, drawn, grid)
            feature_sheet(seen, drawn, grid, folder / f"{task}-features.png")
        if self._film:
            fps = self._session.control_hz / VIDEO_EVERY
            write_video(folder / f"{task}.mp4", film_frames(seen, panels), fps)

    def close(self) -> None:
        """Release the simulator."""
        self._session.close()
