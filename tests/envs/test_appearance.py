"""How a scene looks: light colours against Planck's law, smooth drifts, the sensor's statistics, what frames show."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from embodichain.contracts import UnifiedAction
from embodichain.doctor import renderer_available
from envs import HOME_QPOS, Appearance, BoxPart, DualArmWorld, ObjectSpec, RenderConfig, SceneSpec, make_pose
from envs.appearance import (
    LUMINANCE,
    NEUTRAL_MIRED,
    Distractor,
    Light,
    Sensor,
    Surface,
    Wave,
    camera_views,
    light_colour,
)
from envs.sensor import develop, expose

GREY = np.repeat(np.arange(0, 256, 51, dtype=np.uint8), 60 * 90).reshape(-1, 90, 1).repeat(3, axis=2)  # six levels


def _lobe(x: np.ndarray, height: float, middle: float, below: float, above: float) -> np.ndarray:
    width = np.where(x < middle, below, above)
    return height * np.exp(-0.5 * ((x - middle) / width) ** 2)


def _planck_rgb(kelvin: float) -> np.ndarray:
    """Planck's law, integrated with the CIE 1931 observer as fitted by Wyman, Sloan and Shirley (JCGT 2013)."""
    nm = np.arange(380.0, 781.0)
    power = nm**-5.0 / np.expm1(1.438776877e7 / (nm * kelvin))
    x_bar = _lobe(nm, 1.056, 599.8, 37.9, 31.0) + _lobe(nm, 0.362, 442.0, 16.0, 26.7)
    x_bar -= _lobe(nm, 0.065, 501.1, 20.4, 26.2)
    y_bar = _lobe(nm, 0.821, 568.8, 46.9, 40.5) + _lobe(nm, 0.286, 530.9, 16.3, 31.1)
    z_bar = _lobe(nm, 1.217, 437.0, 11.8, 36.0) + _lobe(nm, 0.681, 459.0, 26.0, 13.8)
    to_rgb = np.array(
        [[3.2404542, -1.5371385, -0.4985314], [-0.9692660, 1.8760108, 0.0415560], [0.0556434, -0.2040259, 1.0572252]]
    )
    return np.asarray(to_rgb @ [(power * bar).sum() for bar in (x_bar, y_bar, z_bar)])


@pytest.mark.parametrize("kelvin", [2500.0, 3000.0, 4000.0, 5000.0, 6500.0, 8000.0, 10000.0])
def test_light_colours_are_those_of_black_bodies(kelvin: float) -> None:
    seen = _planck_rgb(kelvin) / _planck_rgb(6500.0)
    seen /= np.dot(LUMINANCE, seen)
    np.testing.assert_allclose(light_colour(1e6 / kelvin), seen, rtol=0.03, atol=0.02)


def test_light_keeps_its_luminance_and_neutral_light_is_white() -> None:
    assert light_colour(NEUTRAL_MIRED) == (1.0, 1.0, 1.0)
    for mired in (50.0, 100.0, 250.0, 400.0, 600.0):
        assert np.dot(LUMINANCE, light_colour(mired)) == pytest.approx(1.0)
    reds = [light_colour(mired)[0] / light_colour(mired)[2] for mired in (100.0, 200.0, 300.0, 400.0)]
    assert reds == sorted(reds)


def test_a_wave_is_smooth_and_stays_in_its_span() -> None:
    wave = Wave(mean=2.0, terms=((0.3, 60.0, 0.1), (0.2, 150.0, 2.0)))
    values = np.array([wave.at(step) for step in range(600)])
    low, high = wave.span
    assert (low, high) == pytest.approx((1.5, 2.5))
    assert low <= values.min() < 1.7 < 2.3 < values.max() <= high
    assert np.abs(np.diff(values)).max() <= 2 * np.pi * (0.3 / 60.0 + 0.2 / 150.0)
    assert Wave(mean=1.5).at(17) == 1.5


def test_a_light_drifts_in_colour_and_level() -> None:
    light = Light(
        direction=(0.0, 0.0, -1.0),
        temperature=Wave(mean=NEUTRAL_MIRED, terms=((40.0, 100.0, 0.0),)),
        level=Wave(terms=((1.0, 100.0, 0.0),)),
    )
    np.testing.assert_allclose(light.colour_at(0), 1.0)
    assert np.dot(LUMINANCE, light.colour_at(25)) == pytest.approx(2.0)
    assert light.colour_at(25)[0] > 2.0 > light.colour_at(25)[2]


def test_exposure_is_a_factor_on_linear_light() -> None:
    even = expose(GREY, Sensor(seed=0, shot=0.0, read=0.0), 0)
    assert np.abs(even.astype(int) - GREY.astype(int)).max() <= 1
    brighter = expose(GREY, Sensor(seed=0, shot=0.0, read=0.0, exposure=Wave(mean=1.0), red=Wave(mean=-1.0)), 0)
    expected = 255.0 * np.minimum(2.0 * (GREY[..., 1] / 255.0) ** 2.2, 1.0) ** (1 / 2.2)
    assert np.abs(brighter[..., 1] - expected).max() <= 1.0
    assert np.abs(brighter[..., 0].astype(int) - GREY[..., 0].astype(int)).max() <= 1
    assert (brighter[..., 2] == brighter[..., 1]).all()


def test_noise_grows_with_light_as_photons_do() -> None:
    sensor = Sensor(seed=3, shot=0.02, read=0.004)
    noisy = develop(GREY, sensor, 5, "front")
    assert noisy.dtype == np.uint8
    for level in (102, 153, 204):
        at = GREY[..., 0] == level
        light = (level / 255.0) ** 2.2
        measured = (noisy[at] / 255.0) ** 2.2
        assert measured.mean() == pytest.approx(light, abs=2e-3)
        assert measured.std() == pytest.approx(np.sqrt(sensor.shot**2 * light + sensor.read**2), rel=0.1)
    silent = develop(GREY, replace(sensor, shot=0.0, read=0.0), 5, "front")
    assert (silent == expose(GREY, sensor, 5)).all()


def test_noise_depends_on_seed_step_and_camera_alone() -> None:
    sensor = Sensor(seed=3, shot=0.02, read=0.004)
    first = develop(GREY, sensor, 5, "front")
    others = [
        develop(GREY, sensor, 6, "front"),
        develop(GREY, sensor, 5, "top"),
        develop(GREY, replace(sensor, seed=4), 5, "front"),
    ]
    assert all((other != first).mean() > 0.3 for other in others)
    assert (develop(GREY, sensor, 5, "front") == first).all()


@pytest.mark.parametrize(
    ("broken", "match"),
    [
        (lambda: thing(shape="cone"), "cone"),
        (lambda: replace(thing(), half_size=(0.02, 0.02, 0.0)), "half_size"),
        (lambda: Sensor(seed=0, shot=-0.1, read=0.0), "shot=-0.1"),
        (lambda: Appearance(lights=(Light(direction=(0.0, 0.0, -1.0)),) * 4), "4 lights"),
        (lambda: Appearance(sway=(Wave(),)), "sway"),
        (lambda: Appearance(cameras={"front": camera_views()["front"]}), "no camera left"),
        (lambda: replace(camera_views()["front"], arm=2), "arm=2"),
    ],
)
def test_impossible_looks_are_refused(broken, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        broken()


def thing(shape: str = "box", x: float = -0.25) -> Distractor:
    magenta = Surface(colour=(0.9, 0.0, 0.9))
    return Distractor(shape=shape, half_size=(0.04, 0.04, 0.04), position=(x, 0.0, 0.04), yaw=0.3, surface=magenta)


def cube_scene(look: Appearance) -> SceneSpec:
    cube = ObjectSpec(
        name="cube", parts=(BoxPart(half_size=(0.03, 0.03, 0.03)),), pose=make_pose((0.0, 0.0, 0.03)), mass=0.1
    )
    return SceneSpec(objects=(cube,), goals=(), arm_qpos=(HOME_QPOS, HOME_QPOS), appearance=look)


def rendered(*cameras: str, size: int = 96, supersample: int = 1) -> DualArmWorld:
    available, why = renderer_available()
    if not available:
        pytest.skip(why)
    return DualArmWorld(render=RenderConfig(cameras=cameras, width=size, height=size, supersample=supersample))


@pytest.fixture(scope="module")
def world() -> DualArmWorld:
    return rendered("front", "top")


def seen(world: DualArmWorld, look: Appearance) -> np.ndarray:
    world.rebuild(cube_scene(look))
    return world.render_observation().astype(float)


@pytest.mark.render
@pytest.mark.parametrize(
    ("look", "camera"),
    [
        (Appearance(ambient=(0.1, 0.1, 0.1)), "front"),
        (Appearance(lights=(Light(direction=(1.0, 0.0, -0.3)),)), "front"),
        (Appearance(table=Surface(colour=(0.2, 0.1, 0.1))), "front"),
        (Appearance(wall=Surface(colour=(0.1, 0.1, 0.6))), "front"),
        (Appearance(surfaces={"cube": Surface(colour=(0.8, 0.2, 0.2), metallic=1.0)}), "top"),
        (Appearance(table=Surface(colour=(0.62, 0.58, 0.52), roughness=0.2)), "front"),
        (Appearance(cameras={**camera_views(), "front": replace(camera_views()["front"], fov=0.7)}), "front"),
        (Appearance(distractors=(thing("box"),)), "top"),
        (Appearance(distractors=(thing("ball"),)), "top"),
        (Appearance(distractors=(thing("cylinder"),)), "top"),
        (Appearance(sensor=Sensor(seed=0, shot=0.0, read=0.0, exposure=Wave(mean=0.5))), "front"),
    ],
)
def test_every_part_of_a_look_shows(world: DualArmWorld, look: Appearance, camera: str) -> None:
    which = ("front", "top").index(camera)
    plain, other = seen(world, Appearance())[which], seen(world, look)[which]
    assert np.abs(plain - other).max() >= 5.0
    assert 10.0 < other.mean() < 245.0


@pytest.mark.render
def test_a_frame_of_a_step_is_the_same_whatever_was_rendered_before(world: DualArmWorld) -> None:
    """Light, camera and sensor drift; frames taken on the way change neither the later ones nor physics."""
    drift = Wave(terms=((0.3, 40.0, 1.0),))
    look = Appearance(
        lights=(
            Light(direction=(0.3, 0.2, -1.0), temperature=Wave(mean=200.0, terms=((50.0, 30.0, 0.0),)), level=drift),
        ),
        sway=(Wave(terms=((0.01, 20.0, 0.0),)), Wave(), Wave()),
        sensor=Sensor(seed=9, shot=0.02, read=0.002, exposure=drift),
        distractors=(thing(),),
    )

    def run(every: int, look: Appearance) -> tuple[np.ndarray, np.ndarray, bytes]:
        world.rebuild(cube_scene(look))
        action = world.proprio()
        action[UnifiedAction.joints(0)] -= 0.1
        first = world.render_observation()
        for step in range(1, 13):
            world.apply(action)
            if step % every == 0:
                frame, film = world.render_observation(), world.render_video_frame()
        return frame - first, film, frame.tobytes() + world.sim_state().tobytes()

    moved, film, often = run(1, look)
    _, film_again, once = run(12, look)
    assert often == once
    assert (film == film_again).all()
    assert (moved != 0).mean() > 0.5
    _, _, plain = run(12, Appearance())
    state = len(world.sim_state().tobytes())
    assert plain[-state:] == once[-state:]


@pytest.mark.render
def test_a_wrist_camera_moves_with_its_hand_and_no_other() -> None:
    world = rendered("left_wrist", "right_wrist", "front")
    world.rebuild(cube_scene(Appearance()))
    before = world.render_observation().astype(float)
    action = world.proprio()
    action[UnifiedAction.joints(0).start] += 0.4  # the left arm turns about its base
    for _ in range(20):
        world.apply(action)
    left, right, front = np.abs(world.render_observation() - before).mean(axis=(1, 2, 3))
    assert left > 10 * right
    assert front > 1.0
    hand = (world.render_observation()[0, :30, 36:60] < 90).all(axis=-1)
    assert hand.mean() > 0.3, "the hand that carries it hangs into its picture"


@pytest.mark.render
def test_a_supersampled_frame_is_the_mean_of_a_larger_one() -> None:
    frames = []
    for size, supersample in ((64, 1), (32, 2)):
        world = rendered("top", size=size, supersample=supersample)
        world.rebuild(cube_scene(Appearance()))
        frames.append(world.render_observation()[0])
    large, small = frames
    assert small.shape == (32, 32, 3)
    means = large.reshape(32, 2, 32, 2, 3).mean(axis=(1, 3))
    assert np.abs(small - means).max() <= 0.5
    assert np.abs(small - large[::2, ::2].astype(float)).max() > 5.0  # edges: not the larger one with pixels left out
