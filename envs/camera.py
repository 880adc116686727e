"""Cameras and light: what a frame costs, as data, and the rig that takes pictures of a scene as it should look.

Frames are rendered on demand only; nothing here runs during a physics step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import sapien
from mani_skill.render import PREBUILT_SHADER_CONFIGS, set_shader_pack
from mani_skill.utils import sapien_utils

from envs.appearance import Appearance, camera_views
from envs.panda import Arm
from envs.sensor import develop, expose


@dataclass(frozen=True, kw_only=True)
class RenderConfig:
    """How frames are rendered.

    Attributes:
        cameras: names of `camera_views()`, in the order in which observations stack them.
        width: pixels, of the observation frames.
        height: pixels, of the observation frames.
        supersample: render so many times as wide and as high and average, as a lens would: what is smaller than a pixel
            then tints it, rather than being there in one frame and gone in the next.
        backend: "cpu" (Mesa lavapipe) or "gpu".
        robot_visuals: "light" (the arms' collision meshes, about a sixteenth of the cost) or "stock".
        video_width: pixels, of `render_frame`.
        video_height: pixels, of `render_frame`.
    """

    cameras: tuple[str, ...] = ("front",)
    width: int = 128
    height: int = 128
    supersample: int = 1
    backend: str = "cpu"
    robot_visuals: str = "light"
    video_width: int = 480
    video_height: int = 360

    def __post_init__(self) -> None:
        known = camera_views()
        for name in self.cameras:
            if name not in known:
                raise ValueError(f"render.cameras: {name!r} is unknown, expected some of {sorted(known)}")
        if self.backend not in ("cpu", "gpu"):
            raise ValueError(f"render.backend={self.backend!r}: expected 'cpu' or 'gpu'")
        if self.robot_visuals not in ("light", "stock"):
            raise ValueError(f"render.robot_visuals={self.robot_visuals!r}: expected 'light' or 'stock'")
        for field, value in (("width", self.width), ("height", self.height)):
            if value < 16:
                raise ValueError(f"render.{field}={value}: expected at least 16 pixels")
        if not 1 <= self.supersample <= 4:
            raise ValueError(f"render.supersample={self.supersample}: expected 1 to 4")

    def device(self) -> sapien.Device:
        """The device that renders."""
        return sapien.Device("cpu" if self.backend == "cpu" else "cuda")


class CameraRig:
    """The lights and cameras of one built scene. Cameras are created when first asked for a picture."""

    def __init__(self, scene: sapien.Scene, config: RenderConfig, look: Appearance, arms: Sequence[Arm]) -> None:
        self._scene, self._config, self._look, self._arms = scene, config, look, arms
        self._cameras: dict[str, sapien.render.RenderCameraComponent] = {}
        self._eyes: dict[str, tuple[int | None, sapien.Pose]] = {}  # whose hand carries it, and its pose there
        scene.set_ambient_light(list(look.ambient))
        self._lights = [scene.add_directional_light(light.direction, light.colour_at(0)) for light in look.lights]

    def _camera(self, view: str, width: int, height: int) -> str:
        key = f"{view}-{width}x{height}"
        if key not in self._cameras:
            where = self._look.cameras[view]
            set_shader_pack(PREBUILT_SHADER_CONFIGS["minimal"])
            camera = sapien.render.RenderCameraComponent(width, height)
            camera.set_fovy(where.fov, compute_x=True)
            camera.near, camera.far = 0.01, 20.0
            mount = sapien.Entity()
            mount.add_component(camera)
            mount.name = key
            self._scene.add_entity(mount)
            self._cameras[key] = camera
            self._eyes[key] = where.arm, sapien_utils.look_at(where.eye, where.target).sp
        return key

    def _shoot(self, keys: list[str], step: int) -> list[np.ndarray]:
        """Frames as rendered, with light and cameras as they are at that control step."""
        for built, light in zip(self._lights, self._look.lights, strict=True):
            built.color = light.colour_at(step)
        away = np.array([wave.at(step) for wave in self._look.sway] or np.zeros(3))
        for key in keys:
            arm, eye = self._eyes[key]
            pose = eye if arm is None else self._arms[arm].tool_pose() * eye
            self._cameras[key].entity.pose = sapien.Pose(pose.p + away, pose.q)
        self._scene.update_render()
        frames = []
        for key in keys:
            self._cameras[key].take_picture()
            frames.append(np.ascontiguousarray(self._cameras[key].get_picture("Color")[..., :3]))
        return frames

    def observe(self, step: int) -> np.ndarray:
        """u8[V, H, W, 3]: the configured cameras, in order, at a control step."""
        config, sensor = self._config, self._look.sensor
        size = config.width * config.supersample, config.height * config.supersample
        frames = self._shoot([self._camera(name, *size) for name in config.cameras], step)
        frames = [shrunk(frame, config.supersample) for frame in frames]
        if sensor is not None:
            pairs = zip(frames, config.cameras, strict=True)
            frames = [develop(frame, sensor, step, name) for frame, name in pairs]
        return np.stack(frames)

    def video_frame(self, step: int) -> np.ndarray:
        """u8[H, W, 3] from the `video` viewpoint at a control step, without the sensor's noise."""
        frame = self._shoot([self._camera("video", self._config.video_width, self._config.video_height)], step)[0]
        return frame if self._look.sensor is None else expose(frame, self._look.sensor, step)


def shrunk(frame: np.ndarray, factor: int) -> np.ndarray:
    """u8[H f, W f, 3] -> u8[H, W, 3]: the mean of f x f pixels, rounded."""
    if factor == 1:
        return frame
    rows, columns = frame.shape[0] // factor, frame.shape[1] // factor
    sums = frame.reshape(rows, factor, columns, factor, 3).sum((1, 3), dtype=np.uint16)
    area = factor * factor
    return ((sums + area // 2) // area).astype(np.uint8)
