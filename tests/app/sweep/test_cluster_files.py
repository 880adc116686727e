"""The cluster configurations that are shipped: right by the schemas of those who read them."""

import json
import shlex
from pathlib import Path

import pytest
import ray
import yaml
from jsonschema import Draft7Validator

from embodichain.app.cli import make_parser
from embodichain.app.sweep.config import load_sweep

ROOT = Path(__file__).parents[3]
CLUSTER = ROOT / "configs" / "cluster"

COUNT = {"type": "integer", "minimum": 0}
TEXT = {"type": "string", "minLength": 1}
CONTAINER = {
    "type": "object",
    "required": ["name", "image", "resources"],
    "properties": {"name": TEXT, "image": TEXT, "volumeMounts": {"type": "array"}, "env": {"type": "array"}},
}
POD = {
    "type": "object",
    "required": ["spec"],
    "properties": {"spec": {"required": ["containers"], "properties": {"containers": {"items": CONTAINER}}}},
}
# KubeRay's `v1` schema of a RayJob (ray.io_rayjobs.yaml) as far as the manifest goes: names, types, what is required.
# The whole schema is 25 000 lines; the manifest was checked by hand against KubeRay 1.7.0's, unknown names refused.
RAYJOB = {
    "type": "object",
    "required": ["apiVersion", "kind", "metadata", "spec"],
    "properties": {
        "apiVersion": {"const": "ray.io/v1"},
        "kind": {"const": "RayJob"},
        "spec": {
            "additionalProperties": False,
            "required": ["entrypoint", "rayClusterSpec"],
            "properties": {
                "entrypoint": TEXT,
                "runtimeEnvYAML": TEXT,
                "submissionMode": {"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"]},
                "backoffLimit": COUNT,
                "shutdownAfterJobFinishes": {"type": "boolean"},
                "ttlSecondsAfterFinished": COUNT,
                "rayClusterSpec": {
                    "additionalProperties": False,
                    "required": ["headGroupSpec"],
                    "properties": {
                        "rayVersion": TEXT,
                        "enableInTreeAutoscaling": {"type": "boolean"},
                        "autoscalerOptions": {"type": "object"},
                        "headGroupSpec": {
                            "additionalProperties": False,
                            "required": ["template"],
                            "properties": {
                                "rayStartParams": {"additionalProperties": {"type": "string"}},
                                "template": POD,
                            },
                        },
                        "workerGroupSpecs": {
                            "type": "array",
                            "items": {
                                "additionalProperties": False,
                                "required": ["groupName", "minReplicas", "maxReplicas", "template"],
                                "properties": {
                                    "groupName": TEXT,
                                    "replicas": COUNT,
                                    "minReplicas": COUNT,
                                    "maxReplicas": COUNT,
                                    "rayStartParams": {"additionalProperties": {"type": "string"}},
                                    "template": POD,
                                },
                            },
                        },
                    },
                },
            },
        },
    },
}


def rayjob() -> dict:
    return yaml.safe_load((CLUSTER / "rayjob.yaml").read_text())


def test_the_rayjob_is_one_by_kuberays_schema():
    assert [error.message for error in Draft7Validator(RAYJOB).iter_errors(rayjob())] == []


@pytest.mark.parametrize(
    "spoil",
    [
        lambda job: job["spec"].pop("entrypoint"),
        lambda job: job["spec"].update(entryPoint="x"),
        lambda job: job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0].pop("groupName"),
        lambda job: job["spec"]["rayClusterSpec"]["headGroupSpec"]["rayStartParams"].update({"num-cpus": 0}),
    ],
)
def test_the_schema_sees_what_kubernetes_would_refuse(spoil):
    job = rayjob()
    spoil(job)
    assert list(Draft7Validator(RAYJOB).iter_errors(job))


def test_the_rayjob_runs_a_command_that_exists_on_the_ray_that_is_installed():
    spec = rayjob()["spec"]
    assert spec["rayClusterSpec"]["rayVersion"] == ray.__version__
    words = shlex.split(shlex.split(spec["entrypoint"])[2].replace(";", " ; "))
    commands = [words[i + 4 :] for i, word in enumerate(words) if word == "exec"]
    assert len(commands) == 2
    for command in commands:
        arguments = command[: command.index(";")]
        parsed = make_parser("sweep").parse_args(arguments)
        if parsed.config:
            load_sweep(ROOT / parsed.config, parsed.overrides)
    assert commands[0][commands[0].index("--resume") + 1].startswith("/shared/")


def test_volumes_that_pods_mount_are_there():
    cluster = rayjob()["spec"]["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        named = {volume["name"] for volume in pod["volumes"]}
        assert {mount["name"] for each in pod["containers"] for mount in each["volumeMounts"]} <= named


def test_the_launchers_file_is_one_by_rays_own_schema():
    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
    settings = yaml.safe_load((CLUSTER / "ray-launcher.yaml").read_text())
    assert [error.message for error in Draft7Validator(schema).iter_errors(settings)] == []
    assert settings["head_node_type"] in settings["available_node_types"]


def test_what_is_sent_to_a_cluster_leaves_out_what_is_large():
    sent = yaml.safe_load((CLUSTER / "runtime_env.yaml").read_text())
    assert {".git", ".venv", "runs"} <= set(sent["excludes"])


def test_both_images_are_built_from_the_same_constraints():
    text = (ROOT / "Dockerfile").read_text()
    for target in ("cpu", "cuda"):
        assert f"FROM base AS {target}" in text
    assert text.count("COPY pyproject.toml constraints.txt") == 1
    assert text.count("make setup TORCH=") == 2
