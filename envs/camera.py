"""Cameras and light: what a frame shows and what it costs, as data, and the rig that takes pictures.

Frames are rendered on demand only; nothing here runs during a physics step.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import sapien
from mani_skill.render import PREBUILT_SHADER_CONFIGS, set_shader_pack
from mani_skill.utils import sapien_utils

from envs.scene import Vec3


@dataclass(frozen=True, kw_only=True)
class CameraView:
    """Where a camera stands (`eye`), what it looks at (`target`), m, and its vertical field of view, rad."""

    eye: Vec3
    target: Vec3
    fov: float


def camera_views() -> dict[str, CameraView]:
    """The named viewpoints: `front` and `top` see the whole workspace, `video` is for people.

    All look along +x, so that the left arm is on the left of the picture.
    """
    return {
        "front": CameraView(eye=(-0.88, 0.0, 0.62), target=(0.02, 0.0, 0.09), fov=0.82),
        "top": CameraView(eye=(-0.001, 0.0, 1.35), target=(0.0, 0.0, 0.0), fov=0.80),
        "left": CameraView(eye=(-0.50, 0.75, 0.60), target=(0.0, 0.05, 0.05), fov=0.85),
        "right": CameraView(eye=(-0.50, -0.75, 0.60), target=(0.0, -0.05, 0.05), fov=0.85),
        "video": CameraView(eye=(-1.32, 0.0, 0.85), target=(0.05, 0.0, 0.20), fov=0.84),
    }


@dataclass(frozen=True, kw_only=True)
class RenderConfig:
    """How frames are rendered.

    Attributes:
        cameras: names of `camera_views()`, in the order in which observations stack them.
        width: pixels, of the observation frames.
        height: pixels, of the observation frames.
        backend: "cpu" (Mesa lavapipe) or "gpu".
        robot_visuals: "light" (the arms' collision meshes, about a sixteenth of the cost) or "stock".
        video_width: pixels, of `render_frame`.
        video_height: pixels, of `render_frame`.
    """

    cameras: tuple[str, ...] = ("front",)
    width: int = 128
    height: int = 128
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

    def device(self) -> sapien.Device:
        """The device that renders."""
        return sapien.Device("cpu" if self.backend == "cpu" else "cuda")


class CameraRig:
    """The cameras of one built scene. Cameras are created when first asked for a picture."""

    def __init__(self, scene: sapien.Scene, config: RenderConfig) -> None:
        self._scene, self._config = scene, config
        self._cameras: dict[str, sapien.render.RenderCameraComponent] = {}
        scene.set_ambient_light([0.35, 0.35, 0.36])
        scene.add_directional_light([-0.6, 0.25, -1.0], [0.9, 0.88, 0.84], shadow=False)
        scene.add_directional_light([0.4, -0.5, -0.8], [0.35, 0.37, 0.42], shadow=False)

    def _camera(self, view: str, width: int, height: int) -> sapien.render.RenderCameraComponent:
        key = f"{view}-{width}x{height}"
        if key not in self._cameras:
            where = camera_views()[view]
            set_shader_pack(PREBUILT_SHADER_CONFIGS["minimal"])
            camera = sapien.render.RenderCameraComponent(width, height)
            camera.set_fovy(where.fov, compute_x=True)
            camera.near, camera.far = 0.01, 20.0
            mount = sapien.Entity()
            mount.add_component(camera)
            mount.name = key
            mount.pose = sapien_utils.look_at(where.eye, where.target).sp
            self._scene.add_entity(mount)
            self._cameras[key] = camera
        return self._cameras[key]

    def _shoot(self, cameras: list[sapien.render.RenderCameraComponent]) -> np.ndarray:
        self._scene.update_render()
        frames = []
        for camera in cameras:
            camera.take_picture()
            frames.append(np.ascontiguousarray(camera.get_picture("Color")[..., :3]))
        return np.stack(frames)

    def observe(self) -> np.ndarray:
        """u8[V, H, W, 3]: the configured cameras, in order."""
        config = self._config
        return self._shoot([self._camera(name, config.width, config.height) for name in config.cameras])

    def video_frame(self) -> np.ndarray:
        """u8[H, W, 3] from the `video` viewpoint."""
        return self._shoot([self._camera("video", self._config.video_width, self._config.video_height)])[0]
