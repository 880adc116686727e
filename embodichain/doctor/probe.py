"""One question about this machine, answered in a process of its own: `python -m embodichain.doctor.probe TOPIC`.

Graphics drivers and compiled packages can end a process without a Python error, or hang. So each question is asked in
a child: it prints its facts as one JSON object on the last line of standard output and exits 0, or dies, and the
parent (`children`) turns either into a `ProbeResult`. Nothing heavy is imported before a topic asks for it.
"""

from __future__ import annotations

import ctypes
import json
import sys
from collections.abc import Callable
from typing import Any

_VK_API_VERSION_1_2 = (1 << 22) | (2 << 12)
_VK_APPLICATION_INFO = 0
_VK_INSTANCE_CREATE_INFO = 1
_VK_PHYSICAL_DEVICE_PROPERTIES_2 = 1000059001
_VK_PHYSICAL_DEVICE_DRIVER_PROPERTIES = 1000196000
_VK_DEVICE_TYPES = ("other", "integrated GPU", "discrete GPU", "virtual GPU", "CPU")
_VK_NAME_BYTES = 256


class _ApplicationInfo(ctypes.Structure):
    """VkApplicationInfo."""

    _fields_ = [
        ("sType", ctypes.c_uint32),
        ("pNext", ctypes.c_void_p),
        ("pApplicationName", ctypes.c_char_p),
        ("applicationVersion", ctypes.c_uint32),
        ("pEngineName", ctypes.c_char_p),
        ("engineVersion", ctypes.c_uint32),
        ("apiVersion", ctypes.c_uint32),
    ]


class _InstanceCreateInfo(ctypes.Structure):
    """VkInstanceCreateInfo."""

    _fields_ = [
        ("sType", ctypes.c_uint32),
        ("pNext", ctypes.c_void_p),
        ("flags", ctypes.c_uint32),
        ("pApplicationInfo", ctypes.POINTER(_ApplicationInfo)),
        ("enabledLayerCount", ctypes.c_uint32),
        ("ppEnabledLayerNames", ctypes.c_void_p),
        ("enabledExtensionCount", ctypes.c_uint32),
        ("ppEnabledExtensionNames", ctypes.c_void_p),
    ]


class _DriverProperties(ctypes.Structure):
    """VkPhysicalDeviceDriverProperties."""

    _fields_ = [
        ("sType", ctypes.c_uint32),
        ("pNext", ctypes.c_void_p),
        ("driverID", ctypes.c_uint32),
        ("driverName", ctypes.c_char * _VK_NAME_BYTES),
        ("driverInfo", ctypes.c_char * _VK_NAME_BYTES),
        ("conformanceVersion", ctypes.c_uint8 * 4),
    ]


class _DeviceProperties2(ctypes.Structure):
    """VkPhysicalDeviceProperties2: its head as far as it is read here, and room for the limits behind it."""

    _fields_ = [
        ("sType", ctypes.c_uint32),
        ("pNext", ctypes.c_void_p),
        ("apiVersion", ctypes.c_uint32),
        ("driverVersion", ctypes.c_uint32),
        ("vendorID", ctypes.c_uint32),
        ("deviceID", ctypes.c_uint32),
        ("deviceType", ctypes.c_uint32),
        ("deviceName", ctypes.c_char * _VK_NAME_BYTES),
        ("rest", ctypes.c_uint64 * 256),
    ]


def vulkan_devices() -> list[dict[str, str]]:
    """The Vulkan devices of this machine: `name`, `type`, `driver` and `driver_version` (as in "Mesa 25.0.7") of each.

    Raises:
        OSError: The Vulkan loader is not installed.
        RuntimeError: The loader finds no driver.
    """
    vulkan = ctypes.CDLL("libvulkan.so.1")
    application = _ApplicationInfo(sType=_VK_APPLICATION_INFO, apiVersion=_VK_API_VERSION_1_2)
    create = _InstanceCreateInfo(sType=_VK_INSTANCE_CREATE_INFO, pApplicationInfo=ctypes.pointer(application))
    instance = ctypes.c_void_p()
    if code := vulkan.vkCreateInstance(ctypes.byref(create), None, ctypes.byref(instance)):
        raise RuntimeError(f"the Vulkan loader is there, but finds no driver (vkCreateInstance returned {code})")
    try:
        count = ctypes.c_uint32()
        vulkan.vkEnumeratePhysicalDevices(instance, ctypes.byref(count), None)
        handles = (ctypes.c_void_p * count.value)()
        vulkan.vkEnumeratePhysicalDevices(instance, ctypes.byref(count), handles)
        return [_describe(vulkan, handle) for handle in handles if handle]
    finally:
        vulkan.vkDestroyInstance(instance, None)


def _describe(vulkan: ctypes.CDLL, handle: int) -> dict[str, str]:
    driver = _DriverProperties(sType=_VK_PHYSICAL_DEVICE_DRIVER_PROPERTIES)
    device = _DeviceProperties2(sType=_VK_PHYSICAL_DEVICE_PROPERTIES_2, pNext=ctypes.addressof(driver))
    vulkan.vkGetPhysicalDeviceProperties2(ctypes.c_void_p(handle), ctypes.byref(device))
    kind = device.deviceType
    return {
        "name": device.deviceName.decode(errors="replace"),
        "type": _VK_DEVICE_TYPES[kind] if kind < len(_VK_DEVICE_TYPES) else "other",
        "driver": driver.driverName.decode(errors="replace"),
        "driver_version": driver.driverInfo.decode(errors="replace"),
    }


def probe_vulkan() -> dict[str, Any]:
    """Facts: `devices`, as `vulkan_devices` returns them."""
    return {"devices": vulkan_devices()}


def probe_renderer() -> dict[str, Any]:
    """Creates SAPIEN's render system, which fails on a driver that SAPIEN cannot use. Facts: `device`."""
    import sapien

    return {"device": str(sapien.render.RenderSystem().device.name)}


def probe_frame() -> dict[str, Any]:
    """Renders one frame of a red box (7 to 20 s on a CPU: shaders are compiled). Facts: `rgb`, its middle pixel.

    Raises:
        RuntimeError: The pixel is not red: the driver draws, but draws wrong.
    """
    import sapien

    system = sapien.render.RenderSystem()
    sapien.render.set_camera_shader_dir("minimal")
    scene = sapien.Scene([system])
    scene.set_ambient_light([1.0, 1.0, 1.0])
    body = sapien.render.RenderBodyComponent()
    material = sapien.render.RenderMaterial(base_color=[1.0, 0.0, 0.0, 1.0])
    body.attach(sapien.render.RenderShapeBox([0.2, 0.2, 0.2], material))
    box = sapien.Entity()
    box.add_component(body)
    scene.add_entity(box)
    camera = scene.add_camera("probe", 16, 16, 1.0, 0.01, 10.0)
    camera.entity.set_pose(sapien.Pose([-1.5, 0.0, 0.0]))
    scene.update_render()
    camera.take_picture()
    red, green, blue = (float(value) for value in camera.get_picture("Color")[8, 8, :3])
    if red < 0.3 or max(green, blue) > 0.1:
        raise RuntimeError(f"a red box came out as rgb ({red:.2f}, {green:.2f}, {blue:.2f})")
    return {"rgb": [red, green, blue]}


def probe_physics() -> dict[str, Any]:
    """Imports ManiSkill and lets a SAPIEN box fall for 0.1 s. Facts: `sapien`, `mani_skill`: their versions.

    Raises:
        RuntimeError: The box did not fall as far as gravity says.
    """
    from importlib.metadata import version

    import mani_skill.envs  # the import itself is the question
    import sapien

    scene = sapien.Scene([sapien.physx.PhysxCpuSystem()])
    builder = scene.create_actor_builder()
    builder.add_box_collision(half_size=[0.1, 0.1, 0.1])
    builder.initial_pose = sapien.Pose([0.0, 0.0, 1.0])
    box = builder.build()
    scene.set_timestep(0.01)
    for _ in range(10):
        scene.step()
    fallen_m = 1.0 - float(box.pose.p[2])
    if not 0.03 < fallen_m < 0.08:
        raise RuntimeError(f"a free box fell {fallen_m:.4f} m in 0.1 s; about 0.05 m was expected")
    return {"sapien": version("sapien"), "mani_skill": version(mani_skill.__name__)}


def probe_torch() -> dict[str, Any]:
    """Facts: `version`, `threads`, `cpu` (vector extension), `cuda_build`, and `gpus`: `name`, `gib`, `bf16` of each.

    Raises:
        RuntimeError: A bf16 matrix product came out wrong.
    """
    import torch

    low = torch.ones(8, 8, dtype=torch.bfloat16)
    if float((low @ low)[0, 0]) != 8.0:
        raise RuntimeError("a bf16 matrix product came out wrong")
    devices = range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
    return {
        "version": torch.__version__,
        "threads": torch.get_num_threads(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "cuda_build": torch.version.cuda,
        "gpus": [
            {
                "name": torch.cuda.get_device_name(index),
                "gib": round(torch.cuda.get_device_properties(index).total_memory / 2**30, 1),
                "bf16": torch.cuda.is_bf16_supported(),
            }
            for index in devices
        ],
    }


def probe_ray() -> dict[str, Any]:
    """Imports Ray with its Train part; starts nothing. Facts: `version`."""
    import ray
    import ray.train

    return {"version": ray.__version__}


def probe_mlflow() -> dict[str, Any]:
    """Imports MLflow; contacts nothing. Facts: `version`."""
    import mlflow

    return {"version": mlflow.__version__}


TOPICS: dict[str, Callable[[], dict[str, Any]]] = {
    "vulkan": probe_vulkan,
    "renderer": probe_renderer,
    "frame": probe_frame,
    "physics": probe_physics,
    "torch": probe_torch,
    "ray": probe_ray,
    "mlflow": probe_mlflow,
}


def main(topic: str) -> None:
    """Answers one topic: prints its facts as JSON on a line of its own, the last one."""
    facts = TOPICS[topic]()
    print("\n" + json.dumps(facts), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
